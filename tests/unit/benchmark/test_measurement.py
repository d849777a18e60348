from __future__ import annotations

import json

import numpy as np
import pytest

from cluster.benchmark.connection import Answer
from cluster.benchmark.generator import Call, Recording
from cluster.benchmark.measurement import Measurement, measure, merge, ratio_of, speed, to_json


def recording(*calls: Call) -> Recording:
    return Recording(calls=list(calls), begin_s=10.0, end_s=20.0, client_cpu_s=0.5)


def call(started_s: float, ended_s: float, tokens: int | None = 100, status: int = 200, fault: str = "") -> Call:
    return Call(started_s, ended_s, 4, Answer(status, tokens, fault))


def measurement(
    tokens: float | None = 1000.0, latencies: tuple[float, ...] = (0.1,), seconds: float = 10.0
) -> Measurement:
    return Measurement("own", seconds, 10.0, 40.0, tokens, np.asarray(latencies))


def test_requests_within_the_window_count_whole() -> None:
    found = measure(recording(call(11, 12), call(12, 14)))
    assert (found.requests, found.texts, found.tokens) == (2, 8, 200)
    assert found.requests_per_s == 0.2
    assert found.latencies_s.tolist() == [1.0, 2.0]


def test_a_request_that_reaches_into_the_window_counts_by_its_share() -> None:
    found = measure(recording(call(8, 12), call(19, 23)))
    assert found.requests == pytest.approx(0.5 + 0.25)
    assert found.tokens == pytest.approx(75)
    # Only the one that ended within has a latency.
    assert found.latencies_s.tolist() == [4.0]


def test_requests_outside_the_window_do_not_count() -> None:
    found = measure(recording(call(1, 9), call(21, 22)))
    assert (found.requests, found.tokens, len(found.latencies_s)) == (0, 0, 0)
    assert found.percentile_s(50) is None


def test_errors_are_told_apart_and_have_no_latency() -> None:
    found = measure(recording(call(11, 12, status=503), call(11, 12, status=0, fault="timeout"), call(12, 13)))
    assert found.errors == {"503": 1, "timeout": 1}
    assert found.latencies_s.tolist() == [1.0]
    assert found.requests == 1


def test_tokens_are_unknown_where_one_answer_does_not_tell_them() -> None:
    found = measure(recording(call(11, 12), call(12, 13, tokens=None)))
    assert found.tokens is None
    assert found.tokens_per_s is None
    assert speed(found) == found.texts_per_s


def test_percentiles_are_those_of_the_latencies() -> None:
    found = measurement(latencies=tuple(range(1, 101)))
    assert found.percentile_s(50) == pytest.approx(50.5)
    assert found.percentile_s(99) == pytest.approx(99.01)
    assert found.percentile_s(100) == 100


def test_windows_merge_into_one() -> None:
    first, second = measurement(latencies=(0.1, 0.2)), measurement(tokens=3000.0, latencies=(0.3,), seconds=30.0)
    first.server_cpu_s, second.server_cpu_s = {"Encoder": 1.0}, {"Encoder": 2.0, "haproxy": 0.5}
    first.errors = {"503": 2}
    whole = merge([first, second])
    assert whole.tokens_per_s == 100.0
    assert whole.latencies_s.tolist() == [0.1, 0.2, 0.3]
    assert whole.server_cpu_s == {"Encoder": 3.0, "haproxy": 0.5}
    assert whole.server_cpu_s_per_token == 3.5 / 4000
    assert whole.errors == {"503": 2}


def test_a_ratio_compares_round_with_round() -> None:
    ratio = ratio_of([50, 100, 30], [100, 100, 100])
    assert ratio is not None
    assert (ratio.median, ratio.low, ratio.high) == (0.5, 0.3, 1.0)
    assert ratio_of([50], [0]) is None


def test_json_holds_latencies_in_milliseconds() -> None:
    printed = json.loads(json.dumps(to_json(measurement(latencies=(0.25,)))))
    assert printed["latency_ms"]["p99"] == 250.0
    assert printed["tokens_per_s"] == 100.0

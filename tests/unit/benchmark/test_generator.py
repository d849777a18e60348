from __future__ import annotations

import asyncio
import itertools
import threading

import pytest

from cluster.benchmark.connection import tokens_of
from cluster.benchmark.generator import Endpoint, Generator, Recording, Schedule
from cluster.benchmark.measurement import measure
from cluster.benchmark.workloads import WORKLOADS, bodies_of
from cluster.errors import InvalidRequest
from tests.unit.benchmark.doubles import Double, double, sent_texts


def run(made: Double, schedule: Schedule, workload: str = "short", **options: object) -> Recording:
    chosen = WORKLOADS[workload]
    endpoint = Endpoint(made.url + chosen.path, chosen.accept)
    bodies = bodies_of(chosen, "double", 0)
    return asyncio.run(Generator(endpoint, bodies, chosen.texts, schedule, **options).run())  # type: ignore[arg-type]


def test_a_counted_run_measures_exactly_so_many_requests() -> None:
    with double() as made:
        found = measure(run(made, Schedule(4, warm_up_s=0.05, requests=40)))
    assert found.requests == pytest.approx(40)
    assert len(found.latencies_s) == 40
    assert found.tokens == pytest.approx(40 * 15)
    assert not found.errors
    assert len(made.bodies) > 40


def test_no_text_is_sent_twice() -> None:
    with double() as made:
        run(made, Schedule(4, warm_up_s=0.05, requests=20), "batch")
    texts = sent_texts(made)
    assert len(texts) > 20 * 32 - 1
    assert len(set(texts)) == len(texts)


def test_a_timed_run_keeps_all_connections_busy_and_counts_its_window() -> None:
    with double() as made:
        recording = run(made, Schedule(3, warm_up_s=0.1, duration_s=0.4))
    found = measure(recording)
    assert found.seconds == pytest.approx(recording.end_s - recording.begin_s)
    assert 0 < len(found.latencies_s) < len(recording.calls)
    assert found.client_cpu_s > 0
    assert found.tokens == pytest.approx(15 * found.requests)


def test_the_window_begins_once_every_connections_first_request_is_answered() -> None:
    answered = threading.Event()
    with double(wait=answered) as made:
        timer = threading.Timer(0.3, answered.set)
        timer.start()
        recording = run(made, Schedule(3, warm_up_s=0.0, duration_s=0.1))
        timer.join()
    first = sorted(recording.calls, key=lambda call: call.started_s)[:3]
    assert [call.ended_s <= recording.begin_s for call in first] == [True] * 3


def test_the_sample_is_taken_at_both_ends_of_the_window() -> None:
    numbers = itertools.count()
    with double() as made:
        recording = run(made, Schedule(1, warm_up_s=0.0, requests=3), sample=lambda: next(numbers))
    assert recording.samples == (0, 1)


def test_tokens_of_a_header_need_no_body() -> None:
    with double(header=True) as made:
        assert measure(run(made, Schedule(2, warm_up_s=0.0, requests=6))).tokens == pytest.approx(6 * 15)


def test_errors_are_counted_and_the_load_goes_on() -> None:
    with double(statuses=[503, 429]) as made:
        found = measure(run(made, Schedule(1, warm_up_s=0.0, requests=6)))
    assert found.errors == {"503": 1, "429": 1}
    assert len(found.latencies_s) == 4


def test_a_server_that_closes_connections_is_connected_to_anew() -> None:
    with double(close_every=3) as made:
        found = measure(run(made, Schedule(2, warm_up_s=0.0, requests=20)))
    assert not found.errors
    assert len(found.latencies_s) == 20


def test_a_request_without_an_answer_times_out() -> None:
    answered = threading.Event()
    with double(wait=answered) as made:
        try:
            found = measure(run(made, Schedule(1, warm_up_s=0.0, requests=1, timeout_s=0.2)))
        finally:
            answered.set()
    assert found.errors == {"timeout": 1}


def test_the_open_loop_sends_at_its_rate_whatever_the_server_does() -> None:
    with double() as made:
        recording = run(made, Schedule(8, rate=400.0, warm_up_s=0.0, requests=60))
    starts = sorted(call.started_s for call in recording.calls)
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert len(recording.calls) == 60
    # Arrivals are drawn beforehand: 60 of a Poisson process at 400/s with this seed.
    assert sum(gaps) / len(gaps) == pytest.approx(1 / 400, rel=0.5)
    assert max(gaps) > 3 * min(gaps)


def test_waiting_for_a_connection_is_part_of_an_open_loops_latency() -> None:
    answered = threading.Event()
    with double(wait=answered) as made:
        timer = threading.Timer(0.3, answered.set)
        timer.start()
        recording = run(made, Schedule(1, rate=1000.0, warm_up_s=0.0, requests=5))
        timer.join()
    # All five arrived long before the first answer, and only one could be sent.
    assert [call.ended_s - call.started_s > 0.1 for call in recording.calls] == [True] * 5
    assert len(made.bodies) == 5


def test_no_server_is_an_error_that_names_the_address() -> None:
    with double() as made:
        url = made.url
    with pytest.raises(InvalidRequest, match=url.removeprefix("http://")):
        run(Double(url=url), Schedule(1))


def test_a_url_must_be_of_http() -> None:
    with pytest.raises(InvalidRequest, match="not a URL"):
        Endpoint("localhost:8000")


def test_the_key_goes_into_the_head() -> None:
    head = Endpoint("http://h:1/v1/embeddings", "a/b", "secret").head
    assert b"authorization: Bearer secret\r\n" in head
    assert head.startswith(b"POST /v1/embeddings HTTP/1.1\r\nhost: h:1\r\n")
    assert head.endswith(b"\r\ncontent-length: ")


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"usage":{"prompt_tokens":17,"total_tokens":18},"data":[' + b"0.1," * 500 + b"1]}", 17),
        (b'{"data":[' + b"0.1," * 500 + b'1],"usage": {"prompt_tokens": 9}}', 9),
        (b'{"a":[' + b"0.1," * 300 + b'1],"usage":{"total_tokens":5},"b":[' + b"0.1," * 300 + b"1]}", 5),
        (b'{"data":[]}', None),
    ],
)
def test_usage_is_found_at_either_end_and_between(body: bytes, tokens: int | None) -> None:
    assert tokens_of(body) == tokens

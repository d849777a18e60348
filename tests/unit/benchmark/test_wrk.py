from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.benchmark import wrk
from cluster.benchmark.generator import Endpoint, Schedule
from cluster.benchmark.workloads import WORKLOADS
from cluster.errors import InvalidRequest
from tests.unit.benchmark.doubles import double, sent_texts

RESULT = {
    "duration_us": 2_000_000,
    "requests": 100,
    "tokens": 1530,
    "uncounted": 0,
    "statuses": [{"503": 10}, {}],
    "connect": 0,
    "read": 2,
    "write": 0,
    "timeout": 0,
    "latency_us": [[1000, 60], [5000, 40]],
}


def printed(**changes: object) -> str:
    return f"Running 2s test\n  1 threads\nresult {json.dumps({**RESULT, **changes})}\n"


def test_the_scripts_line_is_read() -> None:
    found = wrk.parse_output(printed(), 0.25)
    assert (found.generator, found.seconds, found.requests, found.tokens) == ("wrk", 2.0, 90, 1530)
    assert found.errors == {"503": 10, "read": 2}
    assert found.percentile_s(50) == 0.001
    assert found.percentile_s(99) == 0.005
    assert found.client_cpu_s == 0.25


def test_answers_without_tokens_leave_them_unknown() -> None:
    assert wrk.parse_output(printed(uncounted=1), 0.0).tokens is None


def test_output_without_the_line_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="unable to load"):
        wrk.parse_output("unable to load the script", 0.0)


@pytest.mark.parametrize(
    ("workload", "schedule", "can"),
    [
        ("short", Schedule(16), True),
        ("mixed", Schedule(16), True),
        ("batch", Schedule(4), False),
        ("rerank", Schedule(1), False),
        ("short", Schedule(16, rate=10.0), False),
        ("short", Schedule(16, requests=10), False),
    ],
)
def test_wrk_sends_one_text_in_a_closed_loop_for_a_time(workload: str, schedule: Schedule, can: bool) -> None:
    assert wrk.can_send(WORKLOADS[workload], schedule) is can


@pytest.mark.skipif(wrk.find_wrk() is None, reason="wrk is not installed")
def test_wrk_varies_the_texts_and_counts_tokens() -> None:
    program = wrk.find_wrk()
    assert program is not None
    with double(statuses=[503]) as made:
        endpoint = Endpoint(f"{made.url}/v1/embeddings", api_key="secret")
        schedule = Schedule(2, warm_up_s=0.0, duration_s=1.0)
        found, samples = wrk.run_wrk(
            program, endpoint, WORKLOADS["mixed"], 'a "model"', {"lane": "bulk"}, schedule, 5, lambda: 1
        )
    texts = sent_texts(made)
    assert samples == (1, 1)
    assert found.errors == {"503": 1}
    assert len(set(texts)) == len(texts) >= found.requests > 0
    assert all(20 <= len(text.split()) <= 200 for text in texts)
    assert found.tokens is not None
    assert found.tokens <= sum(len(text.split()) for text in texts)
    assert made.bodies[0] == {"model": 'a "model"', "lane": "bulk", "input": texts[0]}
    assert made.headers[0]["authorization"] == "Bearer secret"
    assert len(found.latencies_s) >= found.requests


@pytest.mark.skipif(wrk.find_wrk() is None, reason="wrk is not installed")
def test_a_server_that_is_not_there_is_an_error() -> None:
    program = wrk.find_wrk()
    assert program is not None
    with double() as made:
        url = made.url
    with pytest.raises(InvalidRequest, match="wrk failed"):
        wrk.run_wrk(program, Endpoint(url), WORKLOADS["short"], "m", {}, Schedule(1, warm_up_s=0, duration_s=1), 0)


def test_the_script_lies_beside_the_module() -> None:
    assert (Path(wrk.__file__).parent / "wrk.lua").is_file()

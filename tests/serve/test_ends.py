from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import FAKE_ARGS, STARTS_WITHIN_S
from tests.support.clusters import serve_cluster, wait_until
from tests.support.serve_run import application, serve_run
from tests.support.traces import FOLDER, spans_in

pytestmark = [pytest.mark.serve, pytest.mark.timeout(180)]


def test_nothing_is_left_of_a_server_that_is_terminated(tmp_path: Path) -> None:
    applications = [application("fused", "/", {"wiring": "fused", **FAKE_ARGS}, ["Ingress"])]
    with serve_run(tmp_path, applications) as run:
        run.wait_for(run.answers, STARTS_WITHIN_S)
        run.end(signal.SIGTERM)


REQUESTS = 7
TRACE = "0af7651916cd43dd8448eb211c80319c"
STAGES = {"fused": ["Ingress"], "split": ["Ingress", "Tokenizer", "Pooler", "Encoder-fake"]}
SPANS = {"fused": {"embed"}, "split": {"embed", "tokenize message", "encode message"}}


@pytest.mark.parametrize("wiring", STAGES)
def test_what_a_replica_counted_and_traced_in_its_last_moment_arrives(wiring: str, tmp_path: Path) -> None:
    tracing = {"exporter": "tests.support.traces:held_files"}
    # No answer from the cache, and every text to the Tokenizer.
    batching = {"deduplicate": False, "ingress_characters": 0}
    args = {"wiring": wiring, **FAKE_ARGS, "tracing": tracing, "batching": batching}
    with serve_cluster(**{FOLDER: str(tmp_path)}) as cluster:
        from ray import serve

        cluster.deploy({"applications": [application("poolhouse", "/", args, STAGES[wiring])]})
        for number in range(REQUESTS):
            answer = httpx.post(
                f"{cluster.url}/v1/embeddings",
                json={"input": f"text {number}"},
                headers={"traceparent": f"00-{TRACE}-{number + 1:016x}-01"},
                timeout=30,
            )
            assert answer.status_code == 200, answer.text
        assert not spans_in(tmp_path, TRACE)
        serve.delete("poolhouse")

        def counted(name: str) -> float:
            lines = httpx.get(cluster.metrics_url, timeout=10).text
            return sum(float(value) for value in re.findall(rf"^ray_{name}\{{.*\}} (\S+)$", lines, re.M))

        names = [span["name"] for span in spans_in(tmp_path, TRACE)]
        assert {name: names.count(name) for name in SPANS[wiring]} == dict.fromkeys(SPANS[wiring], REQUESTS)
        wait_until(lambda: counted("poolhouse_requests_total") >= REQUESTS, 30, "the requests of the last moment")
        wait_until(lambda: counted("poolhouse_encode_seconds_count") >= REQUESTS, 30, "the calls of the last moment")

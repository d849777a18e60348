"""A trace that a client has begun goes on through the replicas of every stage."""

from __future__ import annotations

import httpx
import pytest

from tests.serve.conftest import Cluster
from tests.support.traces import spans_in

pytestmark = [pytest.mark.serve, pytest.mark.timeout(150)]

TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT_SPAN = "b7ad6b7169203331"

# Span → the one that it lies in.
WITHIN = {
    "embed": None,
    "tokenize": "embed",
    "tokenize message": "tokenize",
    "encode": "embed",
    "encode message": "encode",
    "finish": "embed",
}


def test_spans_of_every_replica_hang_together(cluster: Cluster) -> None:
    answer = httpx.post(
        f"{cluster.urls['split']}/v1/embeddings",
        json={"input": "traced, and long enough to go to the Tokenizer", "model": "fake"},
        headers={"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    cluster.run.wait_for(lambda: len(spans_in(cluster.traces, TRACE)) >= len(WITHIN), 10)
    spans = {span["name"]: span for span in spans_in(cluster.traces, TRACE)}
    assert spans.keys() == WITHIN.keys()
    for name, parent in WITHIN.items():
        expected = CLIENT_SPAN if parent is None else spans[parent]["context"]["span_id"].removeprefix("0x")
        assert spans[name]["parent_id"].removeprefix("0x") == expected, name
    processes = {name: span["process"] for name, span in spans.items()}
    assert processes["embed"] == processes["tokenize"] == processes["encode"] == processes["finish"]
    assert len({processes["embed"], processes["tokenize message"], processes["encode message"]}) == 3

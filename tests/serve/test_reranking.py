"""Reranking on a real Ray cluster: both wirings answer as the same stages in one process."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from cluster.config import parse_config
from tests.serve.conftest import FAKE_ARGS
from tests.support.pipelines import http_client, local_pipeline

pytestmark = [pytest.mark.serve, pytest.mark.timeout(150)]

QUERY = "river in paris"
DOCUMENTS = [f"text {number} in paris" for number in range(1_500)]


async def _post(url: str, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.post(url, json=body)


async def _local(path: str, body: dict[str, Any]) -> Any:
    with local_pipeline(parse_config(FAKE_ARGS)) as local:
        async with http_client(local) as client:
            return (await client.post(path, json=body)).json()


@pytest.mark.parametrize("strategy", ["cross_encoder", "late_interaction", "similarity"])
async def test_more_documents_than_a_message_holds_are_ranked(url: str, strategy: str) -> None:
    body = {"model": "fake", "query": QUERY, "documents": DOCUMENTS, "strategy": strategy}
    answer = await _post(f"{url}/v1/rerank", body)
    assert answer.status_code == 200, answer.text
    expected = await _local("/v1/rerank", body)
    got = {result["index"]: result["relevance_score"] for result in answer.json()["results"]}
    wanted = {result["index"]: result["relevance_score"] for result in expected["results"]}
    assert got == pytest.approx(wanted, abs=1e-5)
    assert answer.json()["score_type"] == expected["score_type"]


async def test_every_dialect_answers(url: str) -> None:
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/rerank", {"query": QUERY, "texts": DOCUMENTS[:5]}),
        ("/score", {"text_1": QUERY, "text_2": DOCUMENTS[:5]}),
        ("/predict", {"inputs": [QUERY, DOCUMENTS[0]]}),
        ("/similarity", {"inputs": {"source_sentence": QUERY, "sentences": DOCUMENTS[:5]}}),
    ]
    for path, body in requests:
        answer = await _post(url + path, {"model": "fake", **body})
        expected = await _local(path, {"model": "fake", **body})
        if path == "/score":
            assert answer.json()["data"] == expected["data"]
        else:
            assert answer.json() == expected


@pytest.mark.parametrize(("path", "status"), [("/v1/rerank", 400), ("/v2/rerank", 400)])
def test_a_bad_request_is_refused_and_harms_nobody(url: str, path: str, status: int) -> None:
    good = {"model": "fake", "query": QUERY, "documents": DOCUMENTS[:3]}
    before = httpx.post(url + path, json=good, timeout=60).json()["results"]
    for changes in ({"documents": []}, {"documents": [1]}, {"query": ""}, {"query": "word " * 600}):
        assert httpx.post(url + path, json={**good, **changes}, timeout=60).status_code == status
    assert httpx.post(url + path, json={**good, "documents": ["a"] * 100_001}, timeout=60).status_code == 413
    assert httpx.post(url + path, json=good, timeout=60).json()["results"] == before

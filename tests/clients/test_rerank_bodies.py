"""Bodies as rerank clients send them, read as those clients read the answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

QUERY = "river in paris"
DOCUMENTS = ["a river", "in paris", "unrelated words"]
BEST_FIRST = [1, 0, 2]


@pytest.fixture
def client(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, headers={"authorization": "Bearer sk-test"}) as opened:
        yield opened


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_jinas_clients(client: httpx.Client) -> None:
    body = {
        "model": "text-embedding-3-small",
        "query": QUERY,
        "documents": [{"text": text} for text in DOCUMENTS],
        "top_n": 2,
        "return_documents": True,
    }
    answer = _post(client, "/v1/rerank", body)
    assert [(result["index"], result["document"]["text"]) for result in answer["results"]] == [
        (1, "in paris"),
        (0, "a river"),
    ]
    assert answer["usage"]["total_tokens"] > 0


def test_open_webui(client: httpx.Client) -> None:
    body = {"model": "text-embedding-3-small", "query": QUERY, "documents": DOCUMENTS, "top_n": 3}
    results = _post(client, "/v1/rerank", body)["results"]
    by_document = [result["relevance_score"] for result in sorted(results, key=lambda result: result["index"])]
    assert sorted(range(3), key=lambda index: -by_document[index]) == BEST_FIRST


def test_haystacks_ranker_for_tei(client: httpx.Client) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False, "truncation_direction": "Right"}
    answer = _post(client, "/rerank", body)
    assert [entry["index"] for entry in answer] == BEST_FIRST
    assert all(0 <= entry["score"] <= 1 for entry in answer)


def test_llama_index_asserts_one_score_for_each_text(client: httpx.Client) -> None:
    answer = _post(client, "/rerank", {"query": QUERY, "texts": DOCUMENTS})
    assert sorted(entry["index"] for entry in answer) == [0, 1, 2]


def test_litellm_for_tei(client: httpx.Client) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "top_n": 2, "return_text": True, "truncate": False}
    answer = _post(client, "/rerank", body)
    assert [entry["text"] for entry in answer] == ["in paris", "a river"]


def test_litellm_for_vllm(client: httpx.Client) -> None:
    body = {"model": "fake", "query": QUERY, "documents": DOCUMENTS, "top_n": 1, "rank_fields": None}
    assert [result["index"] for result in _post(client, "/rerank", body)["results"]] == [1]


def test_llama_servers_clients(client: httpx.Client) -> None:
    for path in ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking"):
        answer = _post(client, path, {"query": QUERY, "documents": DOCUMENTS})
        assert [result["index"] for result in answer["results"]] == BEST_FIRST
        assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"]


def test_vllms_score(client: httpx.Client) -> None:
    body = {"model": "fake", "text_1": QUERY, "text_2": DOCUMENTS, "truncate_prompt_tokens": -1}
    answer = _post(client, "/v1/score", body)
    assert [entry["score"] for entry in answer["data"]] == pytest.approx([0.5, 1.0, 0.0])

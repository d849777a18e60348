"""The official ``cohere`` client (v2), unchanged, over a socket."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator

import cohere
import pytest
from cohere.core.request_options import RequestOptions
from cohere.errors import BadRequestError, NotFoundError, UnauthorizedError

KEY = "sk-test"
MODEL = "text-embedding-3-small"
QUERY = "river in paris"
DOCUMENTS = ["a river", "in paris", "unrelated words"]
SCORES = [1 / (1 + math.exp(-score)) for score in (0.5, 1.0, 0.0)]


@pytest.fixture
def client(base_url: str) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(api_key=KEY, base_url=base_url) as opened:
        yield opened


@pytest.fixture
async def async_client(base_url: str) -> AsyncIterator[cohere.AsyncClientV2]:
    async with cohere.AsyncClientV2(api_key=KEY, base_url=base_url) as opened:
        yield opened


def _check(answer: cohere.V2RerankResponse, indices: list[int]) -> None:
    assert [result.index for result in answer.results] == indices
    assert [result.relevance_score for result in answer.results] == pytest.approx([SCORES[index] for index in indices])
    assert answer.id
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 1


def test_the_client_reads_a_ranking(client: cohere.ClientV2) -> None:
    _check(client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS), [1, 0, 2])


def test_top_n_and_the_cap_on_documents_are_taken(client: cohere.ClientV2) -> None:
    _check(client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=64), [1, 0])


async def test_the_async_client_reads_a_ranking(async_client: cohere.AsyncClientV2) -> None:
    _check(await async_client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS), [1, 0, 2])


def test_long_documents_are_cut(client: cohere.ClientV2) -> None:
    answer = client.rerank(model=MODEL, query=QUERY, documents=["river " * 5000, "none"])
    assert [result.index for result in answer.results] == [0, 1]


def test_poolhouses_own_fields_go_in_the_extra_body(client: cohere.ClientV2) -> None:
    options = RequestOptions(additional_body_parameters={"raw_scores": True})
    answer = client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, request_options=options)
    assert [result.relevance_score for result in answer.results] == [1.0, 0.5, 0.0]


def test_errors_are_the_clients_own(client: cohere.ClientV2, base_url: str) -> None:
    with pytest.raises(NotFoundError) as unknown:
        client.rerank(model="nowhere", query=QUERY, documents=DOCUMENTS)
    assert set(unknown.value.body) == {"message", "id"}
    with pytest.raises(BadRequestError) as empty:
        client.rerank(model=MODEL, query=QUERY, documents=[])
    assert "empty list" in empty.value.body["message"]
    with (
        cohere.ClientV2(api_key="sk-other", base_url=base_url) as stranger,
        pytest.raises(UnauthorizedError),
    ):
        stranger.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)

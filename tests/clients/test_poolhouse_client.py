"""Poolhouse's own client, reranking and classifying over a socket."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from cluster.client import Client, Retries
from cluster.errors import InvalidRequest

QUERY = "river in paris"
DOCUMENTS = ["a river", "in paris", "unrelated words"]


@pytest.fixture
def client(base_url: str) -> Iterator[Client]:
    with Client(base_url, api_key="sk-test", retries=Retries(count=0), request_items=2) as opened:
        yield opened


def test_several_requests_make_one_ranking(client: Client) -> None:
    ranking = client.rerank(QUERY, DOCUMENTS, top_n=2, return_documents=True)
    assert ranking.indices.tolist() == [1, 0]
    assert ranking.scores.tolist() == [1.0, 0.5]
    assert ranking.documents == ["in paris", "a river"]
    assert (ranking.score_type, ranking.model) == ("logit", "fake")


@pytest.mark.parametrize(("strategy", "score_type"), [("late_interaction", "maxsim"), ("similarity", "cosine")])
def test_strategies_say_what_their_scores_are(client: Client, strategy: str, score_type: str) -> None:
    assert client.rerank(QUERY, DOCUMENTS, strategy=strategy).score_type == score_type


def test_an_instruction_that_the_model_does_not_take_is_an_error(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="takes no instruction"):
        client.rerank(QUERY, DOCUMENTS, instruction="judge")


def test_pairs_are_classified(client: Client) -> None:
    found = client.classify([("one two", "one"), ("one", "two"), ("one", "one")], pairs=True)
    assert found.labels == ["score"] * 3
    assert found.scores[:, 0].tolist() == pytest.approx([1 / (1 + math.exp(-1)), 0.5, 1 / (1 + math.exp(-1))])
    raw = client.classify(["one", "two"], raw_scores=True)
    assert raw.scores.shape == (2, 1)

"""The client and the server agree on what is good: each case goes through the real application over the fake engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cluster.calls import Strategy
from cluster.client import Client
from cluster.errors import InvalidRequest
from cluster.types import PoolingType
from tests.support.pipelines import SHORT_MODEL, expected_rows, ids_of
from tests.unit.client.conftest import Recorder

OpenClient = Callable[..., Client]


def test_thousands_of_matrices_in_one_request_come_back_whole(recorder: tuple[Recorder, Client]) -> None:
    transport, _ = recorder
    texts = [f"text {number} {'word ' * (number % 7)}" for number in range(2_000)]
    with Client("http://poolhouse", transport=transport, request_items=2_000, request_bytes=2**30) as client:
        (batch,) = client.embed_batches(texts, pooling="none")
    (answer,) = transport.answers
    assert "x-poolhouse-offsets" not in answer.headers
    assert batch.tokens == [len(ids_of(text)) for text in texts]
    for text, matrix in zip(texts, batch.rows, strict=True):
        assert matrix is not None
        np.testing.assert_array_equal(matrix, expected_rows(text, PoolingType.NONE))


def test_what_was_cut_from_matrices_is_counted(open_client: OpenClient) -> None:
    (batch,) = open_client().embed_batches(["word " * 600, "a"], pooling="none", truncate="end")
    assert (batch.tokens, batch.truncated_tokens) == ([512, 3], 90)


@pytest.mark.parametrize("strategy", [None, *Strategy])
def test_every_strategy_ranks_empty_documents_too(strategy: Strategy | None, open_client: OpenClient) -> None:
    ranking = open_client(request_items=2).rerank("one two", ["", "two", "one two"], strategy=strategy)
    assert sorted(ranking.indices.tolist()) == [0, 1, 2]
    assert ranking.errors == {}
    assert np.isfinite(ranking.scores).all()


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"strategy": "maxsim"}, "strategy"),
        ({"instruction": "judge"}, "instruction"),
        ({"model": SHORT_MODEL, "strategy": "cross_encoder"}, "model"),
    ],
)
def test_what_the_server_refuses_is_refused(options: dict[str, str], param: str, open_client: OpenClient) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_client().rerank("one", ["a"], **options)  # type: ignore[arg-type]
    assert caught.value.param == param


@pytest.mark.parametrize("text", ["", [5, 6], 5, None])
def test_what_cannot_be_classified_is_named_before_it_is_sent(text: object, recorder: tuple[Recorder, Client]) -> None:
    transport, client = recorder
    with pytest.raises(InvalidRequest) as caught:
        client.classify(["good", text])  # type: ignore[list-item]
    assert (caught.value.param, caught.value.extra["items"]) == ("input[1]", [1])
    assert transport.bodies == []


def test_texts_and_pairs_are_classified(open_client: OpenClient) -> None:
    client = open_client(request_items=2)
    texts = client.classify(["one", "two", "three"])
    assert (texts.labels, texts.scores.shape) == (["score"] * 3, (3, 1))
    pairs = client.classify([("one two", "one"), ("one", "two")], pairs=True, raw_scores=True)
    assert pairs.scores[:, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("tokens", [[1.5], [True], ["5"], [[5]], 5, [[5], [6, 7]], np.array([5.0])])
def test_ids_that_are_none_have_no_text(tokens: object, open_client: OpenClient) -> None:
    with pytest.raises(InvalidRequest, match="token") as caught:
        open_client().detokenize(tokens)  # type: ignore[arg-type]
    assert caught.value.param == "tokens"


def test_no_ids_are_an_empty_text(open_client: OpenClient) -> None:
    assert open_client().detokenize([]) == ""


@pytest.mark.parametrize("text", ["a text", " ", [5, 6], ["a", 5], [5, ""]])
def test_good_items_are_taken(text: object, open_client: OpenClient) -> None:
    assert np.isfinite(open_client().embed(["a", text])).all()  # type: ignore[list-item]


@pytest.mark.parametrize("text", ["", [], [""], [-1], [2**31], [50_000], [1.5], [True], [[5]], {"text": "a"}, None])
def test_bad_items_are_named_whichever_side_finds_them(text: object, open_client: OpenClient) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_client().embed(["a", text])  # type: ignore[list-item]
    assert (caught.value.status, caught.value.extra["items"]) == (400, [1])

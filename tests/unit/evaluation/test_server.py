"""The client here is a stand-in of a few lines; the way over HTTP is tested with the client itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cluster.errors import EngineError, ModelNotFound, PoolingUnavailable
from cluster.evaluation.local import LocalModel
from cluster.evaluation.server import ServerModel
from cluster.types import Float32, PoolingType

ENTRY: dict[str, Any] = {
    "id": "fake",
    "aliases": ["other-name"],
    "architecture": "bert",
    "pooling_types": ["none", "mean", "cls", "last", "weighted"],
    "refused_pooling_types": {"rank": "it has no head"},
}


@dataclass
class Batch:
    rows: list[Float32 | None]
    truncated_tokens: int = 0


@dataclass
class Piece:
    id: int
    piece: bytes


class StandIn:
    """Answers as a server would, from a local model."""

    def __init__(self, *entries: dict[str, Any], lose: bool = False) -> None:
        self.entries = list(entries)
        self.local = LocalModel.fake()
        self.options: dict[str, Any] = {}
        self.closed = False
        self.lose = lose

    def models(self) -> list[dict[str, Any]]:
        return self.entries

    def embed_batches(self, texts: Sequence[str], **options: Any) -> Iterator[Batch]:
        self.options = options
        for begin in range(0, len(texts), 2):
            rows: list[Float32 | None] = list(self.local.hidden_states(texts[begin : begin + 2]))
            yield Batch([None] * len(rows) if self.lose else rows, truncated_tokens=begin)

    def tokens(self, text: str, *, model: str, add_special: bool, parse_special: bool) -> list[Piece]:
        tokens = [token for token in self.local.tokens(text) if add_special or not token.special]
        return [Piece(token.id, token.piece.encode()) for token in tokens]

    def close(self) -> None:
        self.closed = True


def test_hidden_states_are_those_of_the_server_in_order() -> None:
    client = StandIn(ENTRY)
    source = ServerModel(client)
    texts = ["a", "b c", "d e f"]
    for ours, theirs in zip(source.hidden_states(texts), client.local.hidden_states(texts), strict=True):
        assert np.array_equal(ours, theirs)
    assert source.cut_tokens == 2
    assert client.options["pooling"] == "none"
    assert client.options["normalize"] is False


def test_tokens_are_marked_special_where_only_the_whole_sequence_has_them() -> None:
    source = ServerModel(StandIn(ENTRY))
    assert source.tokens("one one") == LocalModel.fake().tokens("one one")
    assert source.facts.ends_with_token is True


def test_what_the_server_does_not_say_is_unknown() -> None:
    facts = ServerModel(StandIn(ENTRY)).facts
    assert (facts.trained_pooling, facts.causal) == (None, None)
    assert facts.refused == {PoolingType.RANK: "it has no head"}


def test_what_the_server_says_is_known() -> None:
    facts = ServerModel(StandIn({**ENTRY, "trained_pooling": "mean", "causal": False})).facts
    assert (facts.trained_pooling, facts.causal) == (PoolingType.MEAN, False)


def test_a_model_is_found_by_name_or_alias_and_a_wrong_name_gets_the_nearest() -> None:
    client = StandIn({**ENTRY, "id": "first", "aliases": []}, ENTRY)
    assert ServerModel(client).facts.name == "first"
    assert ServerModel(client, "other-name").facts.name == "fake"
    with pytest.raises(ModelNotFound, match=r"did you mean 'fake'\?"):
        ServerModel(client, "fakke")


def test_a_server_that_does_not_answer_none_is_refused() -> None:
    with pytest.raises(PoolingUnavailable, match="does not answer none for fake"):
        ServerModel(StandIn({**ENTRY, "pooling_types": ["mean"]}))


def test_a_text_that_was_left_out_is_an_error() -> None:
    with pytest.raises(EngineError, match="left out a text"):
        list(ServerModel(StandIn(ENTRY, lose=True)).hidden_states(["a"]))


def test_closing_closes_the_connections() -> None:
    client = StandIn(ENTRY)
    ServerModel(client).close()
    assert client.closed

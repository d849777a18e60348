"""Which replica a message goes to, without Serve."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from deployments.careful_router import _ranked
from deployments.placements import Placements
from tests.support.batches import token_batch


def _replicas(names: str) -> list[Any]:
    return [_Replica(name) for name in names]


class _Replica:
    def __init__(self, name: str) -> None:
        self.replica_id = SimpleNamespace(unique_id=name)


def _names(ranks: list[list[Any]]) -> list[str]:
    return ["".join(replica.replica_id.unique_id for replica in rank) for rank in ranks]


def test_the_replica_with_the_fewest_tokens_is_chosen() -> None:
    assert _names(_ranked(_replicas("abcd"), {"a": 5, "b": 900, "c": 4, "d": 30}, {})) == ["c", "ad"]
    assert _names(_ranked(_replicas("a"), {"a": 5}, {})) == ["a"]
    assert _ranked([], {}, {}) == []


def test_of_equal_ones_serve_chooses_between_two() -> None:
    assert _names(_ranked(_replicas("abcd"), {"a": 5}, {})) == ["bc", "da"]


def test_messages_of_one_moment_go_to_different_replicas() -> None:
    replicas = _replicas("abcd")
    offers: dict[str, int] = {}
    assert [_names(_ranked(replicas, {}, offers))[0] for _ in range(3)] == ["ab", "cd", "ab"]


def test_replicas_that_are_gone_are_forgotten() -> None:
    offers: dict[str, int] = {}
    _ranked(_replicas("ab"), {}, offers)
    _ranked(_replicas("bc"), {}, offers)
    assert offers == {"b": 2, "c": 2}


def test_a_replica_is_loaded_with_the_tokens_of_what_it_has_not_answered() -> None:
    placements = Placements()
    first, second, other = token_batch([[1] * 60, [2] * 40]), token_batch([[3] * 7]), "a message to another stage"
    a, b = _replicas("ab")
    for message, replica in ((first, a), (second, a), (other, b)):
        placements.follow(message)
        placements.note(message, replica)
    assert placements.loads() == {"a": 107, "b": 1}
    # It was lost, or hangs: the message went on to another one, and the first may still have it.
    placements.note(second, b)
    assert placements.loads() == {"a": 107, "b": 8}
    placements.forget(first)
    assert placements.loads() == {"a": 7, "b": 8}

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from cluster.errors import EngineError, InvalidRequest, PoolingUnavailable
from cluster.evaluation.local import LocalModel
from cluster.evaluation.spaces import VECTOR_POOLING_TYPES, choose_pooling_types, encode_spaces
from cluster.pooling import normalize, pool_one
from cluster.types import Float32, PoolingType


def test_each_distinct_text_is_encoded_once(model: LocalModel) -> None:
    seen: list[tuple[int, int]] = []
    spaces = encode_spaces(model, ["a", "b", "a", "c", "b"], [PoolingType.MEAN], lambda *counts: seen.append(counts))
    assert spaces.index == {"a": 0, "b": 1, "c": 2}
    assert spaces.tokens == 9
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert spaces.rows(["c", "a", "c"]).tolist() == [2, 0, 2]


def test_spaces_hold_what_pooling_gives(model: LocalModel) -> None:
    texts = ["one two three", "four", "five six"]
    spaces = encode_spaces(model, texts, VECTOR_POOLING_TYPES)
    for text, hidden in zip(texts, model.hidden_states(texts), strict=True):
        for pooling in VECTOR_POOLING_TYPES:
            expected = normalize(pool_one(hidden, pooling)[None, :], 2)[0]
            assert np.array_equal(spaces.vectors[pooling][spaces.index[text]], expected)


def test_all_types_with_a_vector_are_compared_unless_some_are_wanted(model: LocalModel) -> None:
    assert choose_pooling_types(model.facts) == VECTOR_POOLING_TYPES
    assert choose_pooling_types(model.facts, [PoolingType.LAST, PoolingType.MEAN]) == (
        PoolingType.MEAN,
        PoolingType.LAST,
    )


def test_a_refused_type_is_left_out_and_an_error_when_wanted(model: LocalModel) -> None:
    answered = tuple(p for p in PoolingType if p is not PoolingType.CLS)
    facts = replace(model.facts, pooling_types=answered, refused={PoolingType.CLS: "it is causal"})
    assert PoolingType.CLS not in choose_pooling_types(facts)
    with pytest.raises(PoolingUnavailable, match="does not answer cls: it is causal"):
        choose_pooling_types(facts, [PoolingType.CLS])


@pytest.mark.parametrize("pooling", [PoolingType.NONE, PoolingType.RANK])
def test_a_type_without_a_vector_cannot_be_wanted(model: LocalModel, pooling: PoolingType) -> None:
    with pytest.raises(InvalidRequest, match="gives no vector"):
        choose_pooling_types(model.facts, [pooling])


class Faulty(LocalModel):
    """Yields matrices given to it."""

    matrices: Sequence[Float32] = ()

    def hidden_states(self, texts: Sequence[str]) -> Iterator[Float32]:
        yield from self.matrices


@pytest.mark.parametrize(
    ("matrices", "fault"),
    [
        ([np.full((2, 4), np.nan, dtype=np.float32)] * 2, "text 1 has hidden states that are not finite"),
        ([np.ones((2, 4), dtype=np.float32)], "2 texts were sent and 1 came back"),
    ],
)
def test_bad_hidden_states_are_refused(matrices: Sequence[Float32], fault: str) -> None:
    source = Faulty.fake()
    source.matrices = matrices
    with pytest.raises(EngineError, match=fault):
        encode_spaces(source, ["a", "b"], [PoolingType.MEAN])

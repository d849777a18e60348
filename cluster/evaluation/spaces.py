"""One encoding of each distinct text → one vector space for each pooling type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.errors import EngineError, InvalidRequest, PoolingUnavailable
from cluster.evaluation.sources import HiddenStateSource, SourceFacts
from cluster.pooling import normalize, pool_one
from cluster.types import Float32, Int64, PoolingType

# none yields a matrix instead of a vector, and rank is a head's score of a pair: neither is a space to compare texts in.
VECTOR_POOLING_TYPES = (PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST, PoolingType.WEIGHTED)


@dataclass(frozen=True, slots=True)
class Spaces:
    """The vectors of all distinct texts.

    Attributes:
        index: text → row.
        vectors: for each pooling type float32 ``[n_texts, dimensions]``, of Euclidean norm 1.
        tokens: tokens encoded, special ones included.
    """

    index: dict[str, int]
    vectors: dict[PoolingType, Float32]
    tokens: int

    def rows(self, texts: Iterable[str]) -> Int64:
        """Return the rows of these texts, int64 ``[n]``."""
        return np.asarray([self.index[text] for text in texts], dtype=np.int64)


def choose_pooling_types(facts: SourceFacts, wanted: Sequence[PoolingType] = ()) -> tuple[PoolingType, ...]:
    """Return the pooling types to compare: those wanted, or all that the model can answer with one vector.

    Raises:
        InvalidRequest: none or rank is wanted, which give no vector.
        PoolingUnavailable: one is wanted that the model cannot answer.
    """
    for pooling in wanted:
        if pooling not in VECTOR_POOLING_TYPES:
            raise InvalidRequest(
                f"{pooling} gives no vector to compare; choose from {', '.join(VECTOR_POOLING_TYPES)}", "pooling"
            )
        if pooling in facts.refused:
            raise PoolingUnavailable(f"{facts.name} does not answer {pooling}: {facts.refused[pooling]}", "pooling")
    # weighted needs nothing but hidden states, so a source that does not list it is no reason to leave it out.
    answered = {*facts.pooling_types, PoolingType.WEIGHTED}
    return tuple(pooling for pooling in VECTOR_POOLING_TYPES if pooling in (wanted or answered))


def encode_spaces(
    source: HiddenStateSource,
    texts: Iterable[str],
    pooling_types: Sequence[PoolingType],
    progress: Callable[[int, int], None] | None = None,
) -> Spaces:
    """Encode each distinct text once with ``none`` and pool its hidden states in every way.

    Args:
        progress: called with the texts done and the texts in all.

    Raises:
        EngineError: a hidden state is not finite, or the source ended early.
    """
    index: dict[str, int] = {}
    for text in texts:
        index.setdefault(text, len(index))
    vectors: dict[PoolingType, Float32] = {}
    tokens = done = 0
    for row, hidden in enumerate(source.hidden_states(list(index))):
        if not np.isfinite(hidden).all():
            raise EngineError(f"text {row + 1} has hidden states that are not finite; the model or its file is damaged")
        if not vectors:
            vectors = {pooling: np.empty((len(index), hidden.shape[1]), dtype=np.float32) for pooling in pooling_types}
        for pooling, space in vectors.items():
            space[row] = pool_one(hidden, pooling)
        tokens += len(hidden)
        done = row + 1
        if progress is not None:
            progress(done, len(index))
    if done != len(index):
        raise EngineError(f"{len(index)} texts were sent and {done} came back; run it again")
    return Spaces(index, {pooling: normalize(space, 2) for pooling, space in vectors.items()}, tokens)

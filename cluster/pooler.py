"""The Pooler stage: what is left to do to an encoder's numbers, ending in the bytes of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.calls import AnswerOptions
from cluster.pooling import cut_dimensions, normalize, print_rows
from cluster.types import Float32, VectorBatch


@dataclass(slots=True)
class PoolerBatch:
    """The message to the Pooler: vectors, and for each item which request's options apply.

    Attributes:
        owner: item → index into ``options``.
        matrix: item → whether it is a token matrix, which stays two-dimensional and is not normalised by default.
        scores: item → whether it holds a head's outputs, which are neither normalised nor cut.
    """

    vectors: VectorBatch
    owner: list[int]
    options: list[AnswerOptions]
    matrix: list[bool]
    scores: list[bool]

    def __len__(self) -> int:
        return len(self.owner)

    @staticmethod
    def concatenate(batches: Sequence[PoolerBatch]) -> PoolerBatch:
        """Return one message with the items of all."""
        if len(batches) == 1:
            return batches[0]
        joined = PoolerBatch(VectorBatch.concatenate([batch.vectors for batch in batches]), [], [], [], [])
        for batch in batches:
            first_option = len(joined.options)
            joined.owner.extend(first_option + owner for owner in batch.owner)
            joined.options.extend(batch.options)
            joined.matrix.extend(batch.matrix)
            joined.scores.extend(batch.scores)
        return joined


@dataclass(slots=True)
class PieceBatch:
    """The Pooler's answer: for each item its printed numbers and their shape."""

    pieces: list[bytes]
    shapes: list[tuple[int, ...]]

    def pick(self, begin: int, end: int) -> PieceBatch:
        """The items ``[begin, end)``."""
        return PieceBatch(self.pieces[begin:end], self.shapes[begin:end])


class Pooler:
    """The Pooler stage. It has no state, so any number of callers may use it."""

    def finish(self, batch: PoolerBatch) -> PieceBatch:
        """Normalise, cut and print every item."""
        pieces: list[bytes] = []
        shapes: list[tuple[int, ...]] = []
        for item, owner in enumerate(batch.owner):
            options = batch.options[owner]
            rows = finish_rows(batch.vectors.rows(item), options, batch.matrix[item], batch.scores[item])
            pieces.append(print_rows(rows if batch.matrix[item] or options.nested else rows[0], options))
            shapes.append(rows.shape if batch.matrix[item] else rows.shape[1:])
        return PieceBatch(pieces, shapes)


def finish_rows(rows: Float32, options: AnswerOptions, matrix: bool, scores: bool) -> Float32:
    """Return an item's rows normalised and cut as the request asks, float32 ``[rows, width]``.

    Vectors are normalised to Euclidean length 1 unless the request says otherwise; token matrices only when it asks.
    """
    if scores:
        return rows
    default = -1.0 if matrix else 2.0
    p = default if options.normalize is None else options.normalize
    if options.dimensions is not None and options.dimensions < rows.shape[1]:
        return cut_dimensions(rows, options.dimensions, p)
    return np.ascontiguousarray(normalize(rows, p))

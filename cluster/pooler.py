"""The Pooler stage: what is left to do to an encoder's numbers, ending in the bytes of the answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.calls import AnswerOptions, Encoding, OutputType
from cluster.offload import INLINE_S
from cluster.pooling import cut_dimensions, normalize, print_rows
from cluster.rerank import max_sim
from cluster.types import Float32, Int32, VectorBatch

# CPU time of an item and of a value that is normalised and printed, of one that is only copied, and of a query's value that is
# compared with a document's.
_ITEM_S = 1.2e-5
_VALUE_S = 6e-8
_COPIED_VALUE_S = 1e-9
_COMPARED_VALUE_S = 1.5e-10

# About ten milliseconds; sending the matrices to another process takes as long.
_LIGHT_VALUES = 4_194_304


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

    @property
    def cost_s(self) -> float:
        """CPU time that finishing them takes, about."""
        copied = all(self.matrix) and all(map(_is_copy, self.options))
        return _ITEM_S * len(self) + (_COPIED_VALUE_S if copied else _VALUE_S) * len(self.vectors.values)

    @property
    def is_brief(self) -> bool:
        """Whether an event loop can spare the time; a hop to another process costs more."""
        return self.cost_s <= INLINE_S

    def part(self, begin: int, end: int) -> PoolerBatch:
        """The items ``[begin, end)``."""
        return PoolerBatch(
            self.vectors.part(begin, end),
            self.owner[begin:end],
            self.options,
            self.matrix[begin:end],
            self.scores[begin:end],
        )

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

    pieces: list[bytes | bytearray]
    shapes: list[tuple[int, ...]]

    def pick(self, begin: int, end: int) -> PieceBatch:
        """The items ``[begin, end)``."""
        return PieceBatch(self.pieces[begin:end], self.shapes[begin:end])

    @staticmethod
    def concatenate(batches: Sequence[PieceBatch]) -> PieceBatch:
        """Return one answer with the items of all, in order."""
        return PieceBatch(
            [piece for batch in batches for piece in batch.pieces],
            [shape for batch in batches for shape in batch.shapes],
        )


@dataclass(slots=True)
class InteractionBatch:
    """The message to the Pooler that asks for scores: the vectors of queries and of documents, one row or several each.

    Attributes:
        query_of: int32 ``[n_documents]``, index into ``queries``; documents of one query stand together.
    """

    queries: VectorBatch
    documents: VectorBatch
    query_of: Int32

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def cost_s(self) -> float:
        """CPU time that scoring them takes, about."""
        rows = len(self.queries.values) / max(1, int(self.queries.widths.sum()))
        return _ITEM_S * len(self) + _COMPARED_VALUE_S * rows * len(self.documents.values)

    @property
    def is_light(self) -> bool:
        """Whether it is scored within the time that sending its matrices to another process takes."""
        return len(self.documents.values) <= _LIGHT_VALUES

    def part(self, begin: int, end: int) -> InteractionBatch:
        """The documents ``[begin, end)`` and those queries that they are compared with."""
        queries, query_of = np.unique(self.query_of[begin:end], return_inverse=True)
        return InteractionBatch(
            self.queries.select(queries.tolist()), self.documents.part(begin, end), query_of.astype(np.int32)
        )

    @staticmethod
    def concatenate(batches: Sequence[InteractionBatch]) -> InteractionBatch:
        """Return one message with the documents of all."""
        if len(batches) == 1:
            return batches[0]
        first_query = np.cumsum([0, *(len(batch.queries) for batch in batches)])
        shifted = [batch.query_of + first for batch, first in zip(batches, first_query, strict=False)]
        return InteractionBatch(
            queries=VectorBatch.concatenate([batch.queries for batch in batches]),
            documents=VectorBatch.concatenate([batch.documents for batch in batches]),
            query_of=np.concatenate(shifted).astype(np.int32),
        )


class Pooler:
    """The Pooler stage. It has no state, so any number of callers may use it."""

    def finish(self, batch: PoolerBatch) -> PieceBatch:
        """Normalise, cut and print every item."""
        pieces: list[bytes | bytearray] = []
        shapes: list[tuple[int, ...]] = []
        for item, owner in enumerate(batch.owner):
            options = batch.options[owner]
            rows = finish_rows(batch.vectors.rows(item), options, batch.matrix[item], batch.scores[item])
            pieces.append(print_rows(rows if batch.matrix[item] or options.nested else rows[0], options))
            shapes.append(rows.shape if batch.matrix[item] else rows.shape[1:])
        return PieceBatch(pieces, shapes)

    def score(self, batch: InteractionBatch) -> Float32:
        """Return the MaxSim of every document with its query, float32 ``[n_documents]``."""
        scores = np.empty(len(batch), dtype=np.float32)
        # Documents of one query are scored in one matrix product.
        bounds = np.flatnonzero(np.diff(batch.query_of, prepend=-1, append=-1)).tolist()
        for begin, end in itertools.pairwise(bounds):
            query = batch.queries.rows(int(batch.query_of[begin]))
            offsets = batch.documents.offsets[begin : end + 1]
            rows = batch.documents.values[offsets[0] : offsets[-1]].reshape(-1, query.shape[1])
            scores[begin:end] = max_sim(query, rows, (offsets - offsets[0]) // query.shape[1])
        return scores


def _is_copy(options: AnswerOptions) -> bool:
    """Whether a token matrix is answered with just the bytes that the encoder gave."""
    plain = options.output_type is OutputType.FLOAT and options.encoding is Encoding.RAW
    return plain and options.dimensions is None and (options.normalize is None or options.normalize < 0)


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

"""What the client's methods return."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from cluster.client.errors import UnexpectedAnswer
from cluster.errors import PoolhouseError
from cluster.types import Float32, Int64


@dataclass(frozen=True, slots=True)
class EmbedBatch:
    """The vectors of consecutive items, from one request or more.

    Attributes:
        start: index in the whole iterable of the first item.
        rows: for each item float32 ``[dimensions]``, or ``[n_tokens, dimensions]`` for pooling type none, or None for a
            bad item that was skipped.
        tokens: for each item, how many tokens were encoded; 0 for a skipped one.
        truncated_tokens: what truncation cut from all items together.
        errors: index in the whole iterable → why that item was skipped.
        model, pooling, fingerprint: what made the vectors. Vectors of two fingerprints must not be compared.
    """

    start: int
    rows: list[Float32 | None]
    tokens: list[int]
    truncated_tokens: int = 0
    errors: dict[int, PoolhouseError] = field(default_factory=dict)
    model: str = ""
    pooling: str = ""
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, Float32 | None]]:
        """Yield (index in the whole iterable, row)."""
        return iter(enumerate(self.rows, self.start))


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents from the best to the worst; equal scores stand in the order of the documents.

    Attributes:
        indices: int64 ``[k]``, into the documents as they were passed.
        scores: float32 ``[k]``, in falling order.
        documents: ``[k]`` texts, where ``return_documents`` asked for them.
        score_type: what the scores are, in the server's words (``probability``, ``logit``, …).
        errors: index of a document → why it was skipped; it has no place in the ranking.
    """

    indices: Int64
    scores: Float32
    documents: list[str] | None = None
    score_type: str = ""
    model: str = ""
    tokens: int = 0
    errors: dict[int, PoolhouseError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """Yield (index, score), the best first."""
        return iter(zip(self.indices.tolist(), self.scores.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Classification:
    """Labels of texts or pairs.

    Attributes:
        labels: ``[n]``, the best label of each item; None for a bad item that was skipped.
        scores: float32 ``[n, n_labels]``; NaN for a skipped item.
        score_type: ``probs`` or ``scores``, whichever the server sent.
        errors: index → why that item was skipped.
    """

    labels: list[str | None]
    scores: Float32
    score_type: str = ""
    model: str = ""
    errors: dict[int, PoolhouseError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Token:
    """One token; ``piece`` is its text in UTF-8, which may end inside a character."""

    id: int
    piece: bytes


class Gathering:
    """Collects batches: vectors in one array, token matrices in a list.

    Args:
        expected: number of items, where it is known; else the array grows by doubling.
        matrices: token matrices are expected; otherwise the first good item tells.
        dimensions: of an empty result.
    """

    def __init__(self, expected: int, matrices: bool, dimensions: int) -> None:
        self._capacity = max(expected, 1)
        self._table: Float32 = np.empty((0, dimensions), dtype=np.float32)
        self._matrices: list[Float32 | None] | None = [] if matrices else None
        self._filled = 0
        self._known_width = False

    def add(self, batch: EmbedBatch) -> None:
        """Take the next batch."""
        good = next((row for row in batch.rows if row is not None), None)
        if self._matrices is None and good is not None and good.ndim == 2:
            self._matrices = [None] * self._filled
        if self._matrices is not None:
            self._matrices.extend(batch.rows)
        else:
            self._fill(batch.rows, self._table.shape[1] if good is None else len(good))
            self._known_width = self._known_width or good is not None
        self._filled += len(batch)

    def result(self) -> Float32 | list[Float32 | None]:
        """Return float32 ``[n, dimensions]`` with NaN for skipped items, or a list of matrices with None for them."""
        if self._matrices is not None:
            return self._matrices
        filled = self._table[: self._filled]
        return filled if self._filled == len(self._table) else filled.copy()

    def _fill(self, rows: list[Float32 | None], width: int) -> None:
        end = self._filled + len(rows)
        # Until the first good item comes the width is unknown, and all rows so far are NaN.
        if end > len(self._table) or width != self._table.shape[1]:
            if self._known_width and width != self._table.shape[1]:
                raise UnexpectedAnswer(
                    f"item {self._filled} came back with {width} dimensions and those before it with "
                    f"{self._table.shape[1]}: the server changed its model during the call; embed all items again"
                )
            while self._capacity < end:
                self._capacity *= 2
            grown = np.full((self._capacity, width), np.nan, dtype=np.float32)
            if width == self._table.shape[1]:
                grown[: self._filled] = self._table[: self._filled]
            self._table = grown
        for position, row in enumerate(rows, self._filled):
            self._table[position] = np.nan if row is None else row

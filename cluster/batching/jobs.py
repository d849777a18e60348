"""Messages in work at an encoder: what is still open of each, and how its result is put together."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from cluster.errors import PoolhouseError
from cluster.types import (
    Float32,
    Float64,
    Int32,
    Lane,
    Provenance,
    ReplicaReport,
    TokenBatch,
    VectorBatch,
    offsets_of,
)

_NO_VALUES: Float32 = np.zeros(0, dtype=np.float32)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Job:
    """One message in work. Whoever settles an item holds the encoder's lock.

    Attributes:
        build: of the engine that computes it.
        lengths: tokens of each item.
        results: item → its values, None until it is settled.
        widths: int32 ``[n]``, columns of each item's rows.
        spans: float64 ``[n, 2]``, when the engine took each item and when it gave it back; NaN until it has.
        open_items: items not settled yet.
    """

    batch: TokenBatch
    build: str
    lengths: list[int]
    results: list[Float32 | None]
    widths: Int32
    spans: Float64
    open_items: int
    errors: dict[int, PoolhouseError]
    done: Future[VectorBatch] = field(default_factory=Future)
    encoded_tokens: int = 0
    report: ReplicaReport | None = None

    @classmethod
    def of(cls, batch: TokenBatch, build: str = "") -> Job:
        """Open a message; items that carry an error are settled from the start."""
        return cls(
            batch=batch,
            build=build,
            lengths=batch.lengths.tolist(),
            results=[None] * len(batch),
            widths=np.ones(len(batch), dtype=np.int32),
            spans=np.full((len(batch), 2), np.nan),
            open_items=len(batch) - len(batch.errors),
            errors=dict(batch.errors),
        )

    @property
    def lane(self) -> Lane:
        """Bulk only if all its requests are: nobody interactive waits behind bulk work by coalescing with it."""
        lanes = {self.batch.requests[owner].lane for owner in set(self.batch.owner.tolist())}
        return Lane.BULK if lanes == {Lane.BULK} else Lane.INTERACTIVE

    def refuse(self, item: int, error: PoolhouseError) -> None:
        """Give an open item an error in place of values."""
        self.errors[item] = error
        self.open_items -= 1

    def deadline_s(self, item: int) -> float | None:
        """When the time of the item's request is over, by ``time.monotonic``; None is never."""
        return self.batch.requests[int(self.batch.owner[item])].deadline_s

    def result(self, fingerprint: str) -> VectorBatch:
        """Put the settled items together."""
        parts = [_NO_VALUES if values is None else values for values in self.results]
        return VectorBatch(
            fingerprint=fingerprint,
            values=parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else _NO_VALUES,
            offsets=offsets_of([len(part) for part in parts]),
            widths=self.widths,
            errors=self.errors,
            encoded_tokens=self.encoded_tokens,
            report=self.report,
            provenance=Provenance.of(self.spans, self.build),
        )


Window = Sequence[tuple[Job, int]]
"""Items taken together: (message, item of it)."""

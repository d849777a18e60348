"""Messages to an encoder."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from cluster.types import Backlog, Lane, PoolingType, RequestFacts, TokenBatch, offsets_of


def token_batch(
    sequences: Sequence[Sequence[int]],
    *,
    pooling: PoolingType = PoolingType.MEAN,
    lane: Lane = Lane.INTERACTIVE,
    remaining_s: float | None = None,
    fingerprint: str = "f",
    backlog: Backlog | None = None,
) -> TokenBatch:
    """Return the message of one request with these sequences of ids."""
    return TokenBatch(
        fingerprint=fingerprint,
        token_ids=np.asarray([token for sequence in sequences for token in sequence], dtype=np.int32),
        offsets=offsets_of([len(sequence) for sequence in sequences]),
        pooling=np.full(len(sequences), pooling.code, dtype=np.uint8),
        second_segment=np.full(len(sequences), -1, dtype=np.int32),
        cut_tokens=np.zeros(len(sequences), dtype=np.int32),
        owner=np.zeros(len(sequences), dtype=np.int32),
        requests=[RequestFacts("r", lane, None if remaining_s is None else time.monotonic() + remaining_s)],
        backlog=backlog,
    )

"""What the sequences of a call to a causal model have in common, so that it is decoded once."""

from __future__ import annotations

import numpy as np

from cluster.types import Int32, Int64

LEAST_SHARED_TOKENS = 16
"""A shorter prefix costs more in a call of its own than it saves."""


def plan_prefix(token_ids: Int32, offsets: Int64, held: Int32) -> tuple[int, int]:
    """Decide which first tokens of all sequences of a call are decoded once, or not at all.

    Args:
        token_ids: int32 ``[total_tokens]``.
        offsets: int64 ``[n + 1]``.
        held: ids whose keys and values lie in the cache already.

    Returns:
        ``(kept, shared)``: sequence 0 keeps the first ``kept`` entries of the cache, and its tokens up to ``shared`` are
        decoded for all. At least one token of every sequence lies behind ``shared``, since the head reads the last one.
    """
    begins = offsets[:-1]
    room = int((offsets[1:] - begins).min()) - 1
    if room < LEAST_SHARED_TOKENS:
        return 0, 0
    first = token_ids[:room]
    common = _leading_true((token_ids[begins[:, None] + np.arange(room)] == first).all(axis=0))
    overlap = min(len(held), common)
    kept = _leading_true(held[:overlap] == first[:overlap])
    # What a lone sequence begins with may be met again, but decoding it apart would save nothing now.
    alone = len(begins) == 1
    shared = kept if alone or common - kept < LEAST_SHARED_TOKENS else common
    return (kept, shared) if shared >= LEAST_SHARED_TOKENS else (0, 0)


def _leading_true(values: np.ndarray) -> int:
    return len(values) if values.all() else int(values.argmin())

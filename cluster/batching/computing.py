"""One engine call for one micro-batch: its items go in packed, their values come out apart."""

from __future__ import annotations

import numpy as np

from cluster.batching.jobs import Window
from cluster.batching.planning import MicroBatchSizes
from cluster.engine.protocol import Engine
from cluster.pooling import pool
from cluster.types import Float32, PoolingType, offsets_of

_RANK = PoolingType.RANK.code


def compute(
    engine: Engine, sizes: MicroBatchSizes, window: Window, slot: int, threads: int
) -> tuple[list[Float32], list[int]]:
    """Return each item's values and the columns of its rows.

    Raises:
        EngineError: the engine refused or failed the call.
    """
    sequences = [job.batch.ids(item) for job, item in window]
    count, lengths = len(sequences), [len(ids) for ids in sequences]
    filler_tokens = sizes.filler_tokens(lengths)
    if filler_tokens:
        # Last, so that what it yields is left out by not looking at it.
        sequences.append(np.zeros(filler_tokens, dtype=np.int32))
        lengths.append(filler_tokens)
    token_ids = np.concatenate(sequences)
    offsets = offsets_of(lengths)
    codes = np.asarray([job.batch.pooling[item] for job, item in window], dtype=np.uint8)
    if int(codes[0]) == _RANK:
        second = [int(job.batch.second_segment[item]) for job, item in window] + [-1] * (len(lengths) - count)
        scores = engine.score(token_ids, offsets, np.asarray(second, dtype=np.int32), slot=slot, threads=threads)
        return list(scores), [scores.shape[1]] * count
    hidden = engine.encode(token_ids, offsets, slot=slot, threads=threads)
    values, ends, widths = pool(hidden, offsets[: count + 1], codes)
    return [values[ends[i] : ends[i + 1]] for i in range(count)], widths.tolist()

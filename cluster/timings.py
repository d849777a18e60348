"""Where a request's time went: parts that never overlap, so that together they are the whole.

An instant belongs to the first of these that holds: the request's texts were being tokenized; an engine was computing one of
its items (``encode``); its results were being pooled, scored or printed (``pool``); else it waited (``queue``). Several engine
calls at once count once, and of a call that other requests share all of it counts: a part is time on the clock, not work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cluster.telemetry.metrics import QUEUE_SECONDS
from cluster.types import Float64, PoolingType

Span = tuple[float, float]
"""Begin and end, by this process's ``time.monotonic``."""


def timings(whole: Span, tokenized: Span, engine: Sequence[Float64], pooled: Sequence[Span]) -> dict[str, float]:
    """Return seconds by part: ``tokenize``, ``queue``, ``encode`` and ``pool``, and their sum ``total``.

    Args:
        whole: the request, from when it was read to its answer, with all its attempts.
        tokenized: by the last attempt, within ``whole``.
        engine: float64 ``[n, 2]`` each, the spans of its items (see ``cluster.types.Provenance``). What lies outside the time
            between tokenizing and the answer is left out: an item may be computed for an earlier request.
        pooled: pooling, scoring and printing.
    """
    behind = (tokenized[1], whole[1])
    calls = [call for spans in engine for call in _calls(spans)]
    encode_s = covered_s(calls, behind)
    encoded_or_pooled_s = covered_s([*calls, *pooled], behind)
    total_s, tokenize_s = whole[1] - whole[0], tokenized[1] - tokenized[0]
    return {
        "tokenize": tokenize_s,
        "queue": max(0.0, total_s - tokenize_s - encoded_or_pooled_s),
        "encode": encode_s,
        "pool": max(0.0, encoded_or_pooled_s - encode_s),
        "total": total_s,
    }


def _calls(spans: Float64) -> list[Span]:
    """The calls that any of the items was in, once each."""
    # Many items share a call; neighbours mostly do, and are told apart in a tenth of the time. NaN is unlike itself.
    changes = (spans[1:] != spans[:-1]).any(axis=1)
    apart = spans[np.concatenate([[True], changes])[: len(spans)]]
    apart = np.ascontiguousarray(apart[~np.isnan(apart[:, 0])])
    # As complex numbers, pairs are sorted at once.
    return [(call.real, call.imag) for call in np.unique(apart.view(np.complex128)).tolist()]


def covered_s(spans: Iterable[Span], within: Span) -> float:
    """Return how many seconds of ``within`` at least one of the spans covers; NaN covers nothing."""
    begin_s, end_s = within
    covered = 0.0
    for begin, end in sorted(span for span in spans if span[0] < end_s and span[1] > begin_s):
        # What an earlier span has covered counts no more.
        begin_s = max(begin_s, begin)
        if end > begin_s:
            covered += min(end, end_s) - begin_s
            begin_s = min(end, end_s)
    return covered


def count_queue(model: str, pooling: PoolingType, timings_s: dict[str, float]) -> None:
    """Count how long one request waited."""
    QUEUE_SECONDS.labels(model, pooling.value).observe(timings_s["queue"])

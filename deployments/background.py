"""Work that a replica repeats for as long as it lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cluster.telemetry.metrics import BACKGROUND_FAILURES

logger = logging.getLogger("poolhouse")


async def repeat(work: str, pause_s: Callable[[], float], step: Callable[[], Awaitable[object]]) -> None:
    """Take a step after every pause until this is cancelled; one that fails in any way is logged, counted and taken again.

    Args:
        work: names it in the log and in ``poolhouse_background_failures_total``.
    """
    while True:
        await asyncio.sleep(pause_s())
        # A task of its own: what it waits for may be cancelled by others, and that must not end the repetition.
        task = asyncio.ensure_future(step())
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
        error = asyncio.CancelledError("cancelled") if task.cancelled() else task.exception()
        if error is not None:
            BACKGROUND_FAILURES.labels(work).inc()
            logger.error("%s: a step of the background work failed and is taken again", work, exc_info=error)

"""How an event loop waits for what threads do."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


async def result_of(done: Future[Result]) -> Result:
    """Return a future's result; it is cancelled with its waiter.

    ``asyncio.wrap_future`` leaves future and result in a cycle of references: token matrices of megabytes then stay until the
    garbage collector's next full round, and an encoder under such load took three times its memory.
    """
    loop = asyncio.get_running_loop()
    settled = asyncio.Event()

    def wake(_: Future[Result]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(settled.set)

    done.add_done_callback(wake)
    try:
        await settled.wait()
    except asyncio.CancelledError:
        done.cancel()
        raise
    if done.cancelled():
        raise asyncio.CancelledError
    return done.result()

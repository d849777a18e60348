"""Work that would hold up an event loop runs on a few threads, and counts until the thread has ended.

Whether work is long is decided here, by the CPU time that it will take; what knows the work estimates that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Item = TypeVar("Item")
Result = TypeVar("Result")

INLINE_S = 0.002
"""An event loop can spare this much CPU time at once; a change of threads costs a tenth of it."""

# Longer work leaves one thread to all that is shorter.
_LONG_S = 0.02


_TURN_ITEMS = 512

# Of what one answer has set free: whoever comes after that goes on in the next turn of the loop.
_TURN_S = 0.005

# Python's own 5 ms is what an event loop waits for each thread that computes in Python.
_SWITCH_S = 0.001


def keep_loop_quick() -> None:
    """Prepare a process that has loaded everything for an event loop that never waits long.

    What is there now is left out of garbage collection, which else would go through all of it while requests wait.
    """
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()


class _Turn(threading.local):
    """The turn that this thread's event loop is in: since when, in CPU time; None before anybody has asked.

    A loop that was closed in the middle of a turn says nothing of the next one.
    """

    began_s: float | None = None
    loop: asyncio.AbstractEventLoop | None = None


_turn = _Turn()


async def its_turn() -> None:
    """Go on at once where this turn of the event loop has CPU time left for it, else in a later one.

    For what may be set free together with much else: a result that many parts of requests wait for wakes all of them in one turn.
    """
    loop = asyncio.get_running_loop()
    while True:
        if _turn.began_s is None or _turn.loop is not loop:
            _turn.began_s, _turn.loop = time.thread_time(), loop
            # What is scheduled now runs in the next turn, before all that gives way in this one.
            loop.call_soon(_end_turn)
            return
        if time.thread_time() - _turn.began_s < _TURN_S:
            return
        await asyncio.sleep(0)


def _end_turn() -> None:
    _turn.began_s = None


async def in_turns(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield ``items``, and let the event loop go on after every few hundred."""
    for index, item in enumerate(items):
        if index % _TURN_ITEMS == _TURN_ITEMS - 1:
            await asyncio.sleep(0)
        yield item


class Offload:
    """Runs work on threads of its own.

    A place is held until the thread has ended, whether anybody still waits for the result or not: callers that leave cannot
    pile work up. Work that has no thread yet is dropped with its caller.

    Args:
        threads: that work at once, at least 2; as many as there are cores where none is given.
    """

    def __init__(self, threads: int | None = None) -> None:
        threads = max(2, threads or min(4, os.cpu_count() or 2))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="offload")
        self._places = asyncio.Semaphore(threads)
        self._long_places = asyncio.Semaphore(threads - 1)

    async def run(
        self, cost_s: float, work: Callable[Arguments, Result], *args: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        """Do ``work`` here where it takes next to nothing, else on a thread as soon as one is free.

        Args:
            cost_s: CPU time that it will take.

        Raises:
            Whatever ``work`` raises.
        """
        if cost_s <= INLINE_S:
            return work(*args, **options)
        return await self.run_held(cost_s, lambda: None, partial(work, *args, **options))

    async def run_held(self, cost_s: float, let_go: Callable[[], None], work: Callable[[], Result]) -> Result:
        """Do ``work`` on a thread.

        Args:
            let_go: called on the event loop, once, when the thread has ended, or at once where it never began.

        Raises:
            Whatever ``work`` raises.
        """
        gates = [self._long_places, self._places] if cost_s > _LONG_S else [self._places]
        entered: list[asyncio.Semaphore] = []

        def leave() -> None:
            for gate in entered:
                gate.release()
            let_go()

        try:
            for gate in gates:
                await gate.acquire()
                entered.append(gate)
            future = self._pool.submit(work)
        except BaseException:
            leave()
            raise
        loop = asyncio.get_running_loop()

        def ended(_: Future[Result]) -> None:
            # A loop that has closed has nobody left who waits for a place.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(leave)

        future.add_done_callback(ended)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Take no more work; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

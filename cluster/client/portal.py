"""An event loop in a thread of its own, for the client that is not asynchronous.

The requests run there, so that Ctrl-C or an error in the caller's thread ends them at once; a thread that blocks on a socket
could not be told to stop.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from cluster.client.errors import ServerUnreachable

Result = TypeVar("Result")

_CLOSING_S = 5.0


class Portal:
    """Runs coroutines for other threads.

    Args:
        aclose: run in the loop before it ends; must hold no reference to the portal's owner.
    """

    def __init__(self, owner: object, aclose: Callable[[], Awaitable[None]]) -> None:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run, args=(self._loop,), name="poolhouse-client", daemon=True)
        thread.start()
        # Also runs when the owner is collected or the interpreter exits, so that no socket is left open.
        self._finalizer = weakref.finalize(owner, _stop, self._loop, thread, aclose)

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start a coroutine; cancelling the future cancels it.

        Raises:
            ServerUnreachable: the portal is closed.
        """
        if not self._finalizer.alive:
            work.close()
            raise ServerUnreachable("the client is closed; make a new one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine and return its result."""
        future = self.submit(work)
        try:
            return self.result_of(future)
        finally:
            future.cancel()

    def result_of(self, future: Future[Result]) -> Result:
        """Wait for what ``submit`` started.

        Raises:
            ServerUnreachable: the portal was closed meanwhile.
        """
        try:
            return future.result()
        except CancelledError as error:
            raise ServerUnreachable("the client was closed before the answer came; make a new one") from error

    def close(self) -> None:
        """End all that runs and the thread; may be called again."""
        self._finalizer()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _end(aclose: Callable[[], Awaitable[None]]) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await aclose()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, aclose: Callable[[], Awaitable[None]]) -> None:
    if thread is threading.current_thread():
        # The owner was collected while the loop's own thread ran; it cannot wait for itself.
        loop.create_task(_end(aclose)).add_done_callback(lambda task: loop.stop())
        return
    if not thread.is_alive():
        return
    ended = asyncio.run_coroutine_threadsafe(_end(aclose), loop)
    try:
        ended.result(_CLOSING_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSING_S)

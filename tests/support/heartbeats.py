"""How much CPU time the thread of a server's event loop takes at once while the server works."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

_BEAT_S = 0.001


@dataclass(slots=True)
class Heartbeat:
    """An ASGI application around another one. From its first request on, a task on its loop wakes every millisecond.

    Attributes:
        longest_s: the most CPU time of the loop's thread between two beats. What else runs on the machine adds nothing to it.
    """

    application: ASGIApp
    longest_s: float = 0.0
    beats: int = 0
    _task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._beat())
        await self.application(scope, receive, send)

    def reset(self) -> None:
        """Forget how long it took so far."""
        self.longest_s, self.beats = 0.0, 0

    async def _beat(self) -> None:
        while True:
            before_s = time.thread_time()
            await asyncio.sleep(_BEAT_S)
            self.longest_s = max(self.longest_s, time.thread_time() - before_s)
            self.beats += 1

"""How late a task on a server's event loop is while the server works, in CPU time of its process."""

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
        latest_s: the most that it was late, at most the CPU time that the whole process used meanwhile: what another thread
            does with the interpreter's lock counts, and time in which the machine had none for the process does not.
    """

    application: ASGIApp
    latest_s: float = 0.0
    beats: int = 0
    _task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._beat())
        await self.application(scope, receive, send)

    def reset(self) -> None:
        """Forget how late it was so far."""
        self.latest_s, self.beats = 0.0, 0

    async def _beat(self) -> None:
        while True:
            wall_s, cpu_s = time.monotonic(), time.process_time()
            await asyncio.sleep(_BEAT_S)
            late_s = time.monotonic() - wall_s - _BEAT_S
            self.latest_s = max(self.latest_s, min(late_s, time.process_time() - cpu_s))
            self.beats += 1

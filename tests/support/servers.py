"""An ASGI application on a free port of this machine, for clients that need a socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

_START_WITHIN_S = 30.0
_STOP_WITHIN_S = 30.0


class _Server(uvicorn.Server):
    """Says when it has started, or has ended without."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


@contextmanager
def served(application: ASGIApp) -> Iterator[str]:
    """Serve ``application`` in a thread; yields its URL, and stops and joins the thread afterwards."""
    with socket.socket() as listener:
        # Bound before the server starts: the port cannot be lost to another process in between.
        listener.bind(("127.0.0.1", 0))
        server = _Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), name="test-server")
        thread.start()
        try:
            assert server.settled.wait(_START_WITHIN_S), f"the server did not start within {_START_WITHIN_S:g} s"
            assert server.started, "the server ended before it had started"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_STOP_WITHIN_S)
            assert not thread.is_alive(), f"the server did not stop within {_STOP_WITHIN_S:g} s"

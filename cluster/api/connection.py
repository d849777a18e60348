"""Ends a request's work when its client has gone: nobody would read the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

# What proxies log for a client that closed the connection; no client ever sees it.
CLIENT_CLOSED_REQUEST = 499


async def while_connected(request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
    """Run ``handle`` and cancel it when the client disconnects.

    ASGI reports a disconnect only to whoever asks for the next message, and the body comes by the same way; so the watch
    begins with the body's last part.
    """
    handler = asyncio.current_task()
    assert handler is not None
    watch: asyncio.Task[None] | None = None
    gone = False

    async def wait_for_disconnect() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        handler.cancel()

    async def receive() -> Message:
        nonlocal watch
        message = await request.receive()
        if message["type"] == "http.request" and not message.get("more_body") and watch is None:
            watch = asyncio.get_running_loop().create_task(wait_for_disconnect())
        return message

    try:
        return await handle(Request(request.scope, receive))
    except asyncio.CancelledError:
        if not gone:
            raise
        handler.uncancel()
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        if watch is not None:
            watch.cancel()

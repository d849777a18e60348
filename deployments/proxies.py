"""Whose a request is that a HAProxy of this cluster has brought: by the header that HAProxy sets. Nobody else is believed."""

from __future__ import annotations

import asyncio

import ray
from ray.util import get_node_ip_address
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.background import repeat

_LOOK_S = 30.0
_HEADER = b"x-forwarded-for"


class Proxies:
    """The addresses of the cluster's machines, each of which runs a HAProxy; machines come and go."""

    def __init__(self) -> None:
        self._own = frozenset({"127.0.0.1", "::1", get_node_ip_address()})
        self.addresses = self._own
        self._pause_s = 0.0
        self._task = asyncio.get_running_loop().create_task(repeat("proxies", lambda: self._pause_s, self._look))

    def stop(self) -> None:
        """End the background task."""
        self._task.cancel()

    async def _look(self) -> None:
        self._pause_s = _LOOK_S
        nodes = await asyncio.to_thread(ray.nodes)
        self.addresses = self._own | {node["NodeManagerAddress"] for node in nodes if node["Alive"]}


def from_clients(application: ASGIApp, proxies: Proxies) -> ASGIApp:
    """Return the application with the client's address, not the proxy's, in each scope."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        if scope["type"] == "http" and peer and peer[0] in proxies.addresses:
            told = [value for name, value in scope["headers"] if name == _HEADER]
            if told:
                # The last is what the proxy next to here has added.
                scope["client"] = (told[-1].decode("latin-1").rpartition(",")[2].strip(), 0)
        await application(scope, receive, send)

    return call

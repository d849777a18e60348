from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from deployments import proxies
from deployments.proxies import Proxies, from_clients


@pytest.fixture
async def known(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxies]:
    nodes = [{"NodeManagerAddress": "10.0.0.2", "Alive": True}, {"NodeManagerAddress": "10.0.0.3", "Alive": False}]
    monkeypatch.setattr(proxies.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(proxies, "get_node_ip_address", lambda: "10.0.0.1")
    made = Proxies()
    await made._look()
    yield made
    made.stop()


async def _client(known: Proxies, peer: str, *forwarded: str) -> str:
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"type": "http", "client": (peer, 1), "headers": headers}
    await from_clients(application, known)(scope, None, None)  # type: ignore[arg-type]  # it asks for no message
    return seen[0]


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.1", "10.0.0.2"])
async def test_a_proxy_of_the_cluster_is_believed_whose_the_request_is(known: Proxies, peer: str) -> None:
    assert await _client(known, peer, "192.0.2.7") == "192.0.2.7"
    assert await _client(known, peer, "192.0.2.9", "192.0.2.8, 192.0.2.7") == "192.0.2.7"
    assert await _client(known, peer) == peer


@pytest.mark.parametrize("peer", ["192.0.2.1", "10.0.0.3"])
async def test_nobody_else_is_believed(known: Proxies, peer: str) -> None:
    assert await _client(known, peer, "192.0.2.7") == peer

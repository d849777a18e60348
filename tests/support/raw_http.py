"""HTTP by hand, for clients that stall: what the usual ones would never do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

_ANSWER_WITHIN_S = 60.0


@contextmanager
def connection(url: str, receive_buffer_bytes: int | None = None) -> Iterator[socket.socket]:
    """Connect to a server of this machine."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as opened:
        if receive_buffer_bytes is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        opened.settimeout(_ANSWER_WITHIN_S)
        opened.connect((host, int(port)))
        yield opened


def head(path: str, *headers: str) -> bytes:
    """Return a request's first lines."""
    return "\r\n".join((f"POST {path} HTTP/1.1", "host: poolhouse", *headers, "", "")).encode()


def rest_of(opened: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    parts = []
    while part := opened.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)

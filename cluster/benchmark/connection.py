"""One HTTP/1.1 connection that costs the load generator as little as Python allows.

A general client takes about a millisecond for a request, half of what the server under test takes. This one writes prepared
bytes, lets a C parser find the end of the answer, and reads nothing of it but the number of tokens.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

import httptools

_USAGE = re.compile(rb'"prompt_tokens"\s*:\s*(\d+)')
_TOTAL = re.compile(rb'"total_tokens"\s*:\s*(\d+)')
_TOKENS_HEADER = b"x-poolhouse-tokens"
# Where a body puts its usage: llama-server in front of the vectors, most others behind them.
_ENDS = 512


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP, or 0 where there was no answer.
        tokens: that the server says it encoded, or None where it does not say.
        fault: why there was no answer.
    """

    status: int
    tokens: int | None = None
    fault: str = ""


class Connection(asyncio.Protocol):
    """Sends one request at a time; ``on_answer`` is called once for each."""

    def __init__(self, head: bytes, on_answer: Callable[[Connection, Answer], None]) -> None:
        self.started_s = 0.0
        self.texts = 0
        self.busy = False
        self._head = head
        self._on_answer = on_answer
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._tokens: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, body: bytes, started_s: float, texts: int) -> None:
        """Send one request; ``started_s`` is what its latency counts from."""
        assert self._transport is not None
        self.started_s, self.texts, self.busy = started_s, texts, True
        self._reset()
        self._transport.write(self._head + b"%d\r\n\r\n%s" % (len(body), body))

    def fail(self, fault: str) -> None:
        """Give up on the request in flight and on the connection."""
        if self._transport is not None:
            self._transport.abort()
        self._settle(Answer(0, fault=fault))

    def close(self) -> None:
        """Close the connection; a request in flight is forgotten."""
        self.busy = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        self._settle(Answer(0, fault="connection lost"))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.fail("malformed answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if name.lower() == _TOKENS_HEADER:
            self._tokens = int(value)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if self._tokens is None:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
        tokens = self._tokens if self._tokens is not None else tokens_of(b"".join(self._pieces))
        self._settle(Answer(status, tokens))

    def _settle(self, answer: Answer) -> None:
        if self.busy:
            self.busy = False
            self._on_answer(self, answer)

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._pieces = []
        self._tokens = None


def tokens_of(body: bytes) -> int | None:
    """Return the ``usage`` of an answer's JSON body, or None where it has none."""
    for pattern in (_USAGE, _TOTAL):
        for part in (body[-_ENDS:], body[:_ENDS], body):
            found = pattern.search(part)
            if found:
                return int(found.group(1))
    return None

"""What every handler works with: the request's context, its body, and how an outcome becomes a response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from cluster.api.errors import error_body
from cluster.api.keys import ApiKey
from cluster.api.parsing import INLINE_BODY_BYTES, Parse, Parsed, Parsers, parse_body
from cluster.api.transfers import Transfer, Transfers
from cluster.attempts import ARRIVED_S
from cluster.config import Limits
from cluster.errors import PayloadTooLarge, PoolhouseError

# Of the largest size; bodies are smaller as a rule, so that thousands are read at once.
_BODIES_AT_ONCE = 8

PrintError = Callable[[PoolhouseError, str], tuple[int, bytes, dict[str, str]]]
"""A dialect's error body: error and request id → status, body and headers."""


@dataclass(slots=True)
class RequestContext:
    """What every handler gets besides the request.

    Attributes:
        printer: the shape of errors; a handler that finds another dialect in the body changes it.
    """

    request_id: str
    key: ApiKey | None
    printer: PrintError


Handler = Callable[[Request, RequestContext], Awaitable[Response]]


def print_error(error: PoolhouseError, request_id: str) -> tuple[int, bytes, dict[str, str]]:
    """The shape of all dialects that have none of their own."""
    return error_body(error)


def error_response(error: PoolhouseError, request_id: str, printer: PrintError = print_error) -> Response:
    """Return an error as a response."""
    status, content, headers = printer(error, request_id)
    return Response(content, status, headers=headers, media_type="application/json")


class BodyReader:
    """Reads and parses bodies. What is being read or parsed is bounded together: admission sees a request only after that.

    A small body that comes in one piece is not counted; the others are with the bytes that have come, whatever they announce.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._transfers = Transfers("bodies", limits, _BODIES_AT_ONCE * limits.max_body_bytes, limits.stall_s)
        self._parsers = Parsers()

    @property
    def held_bytes(self) -> int:
        """What all bodies that are large, or come in several pieces, have in memory until they are parsed."""
        return self._transfers.held_bytes

    async def parse(self, request: Request, parse: Parse[Parsed]) -> Parsed:
        """Read a request's JSON object and parse it, in a process of its own where it is large.

        Args:
            parse: a function of a module, which that process imports.

        Raises:
            RequestTimeout: it comes too slowly.
            PayloadTooLarge: it, or a text in it, is larger than the limit.
            Overloaded: too much is being read already.
            InvalidRequest: it is no JSON object, or not what ``parse`` expects.
        """
        declared = request.headers.get("content-length", "")
        limit = self._limits.max_body_bytes
        if declared.isdigit() and int(declared) > limit:
            raise PayloadTooLarge(f"the body has {declared} bytes and the limit is {limit}; send it in parts")
        transfer = self._transfers.open()
        parts: list[bytes] = []
        letting_go = True
        try:
            await self._read(request, transfer, parts)
            ARRIVED_S.set(time.monotonic())
            kind, headers = request.headers.get("content-type"), request.headers
            size = sum(map(len, parts))
            if size <= INLINE_BODY_BYTES:
                return parse_body(b"".join(parts), kind, parse, headers, self._limits)
            self._transfers.hold(transfer, size)
            letting_go = False
            let_go = partial(self._transfers.close, transfer)
            return await self._parsers.parse(parts, let_go, kind, parse, dict(headers), self._limits)
        finally:
            if letting_go:
                self._transfers.close(transfer)

    async def _read(self, request: Request, transfer: Transfer, parts: list[bytes]) -> None:
        limit, size = self._limits.max_body_bytes, 0
        transfer.begin()
        try:
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect()
                part = message.get("body", b"")
                size += len(part)
                transfer.moved(len(part))
                if size > limit:
                    raise PayloadTooLarge(f"the body has more than {limit} bytes, which is the limit; send it in parts")
                parts.append(part)
                if not message.get("more_body"):
                    break
                self._transfers.hold(transfer, size)
        except asyncio.CancelledError as cancelled:
            parts.clear()
            raise transfer.cause(cancelled) from None
        transfer.moving = False

"""What every handler works with: the request's context, its body, and how an outcome becomes a response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cluster.api.body import read_json
from cluster.api.errors import error_body
from cluster.api.keys import ApiKey
from cluster.config import Limits
from cluster.errors import Overloaded, PayloadTooLarge, PoolhouseError

# Of the largest size; bodies are smaller as a rule, so that thousands are read at once.
_BODIES_AT_ONCE = 8
_READING_RETRY_S = 1

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
    """Reads bodies, and bounds what those that are still being read have together: admission sees a request only after that."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.max_body_bytes
        self._limit_of_all = _BODIES_AT_ONCE * limits.max_body_bytes
        self.held_bytes = 0

    async def read(self, request: Request) -> dict[str, Any]:
        """Read a request's JSON object, and no further than the limit.

        Raises:
            PayloadTooLarge: it is larger than the limit.
            Overloaded: too much is being read already.
            InvalidRequest: it is no JSON object.
        """
        limit = self._limit
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise PayloadTooLarge(f"the body has {declared} bytes and the limit is {limit}; send it in parts")
        parts: list[bytes] = []
        size = 0
        try:
            async for part in request.stream():
                size += len(part)
                self.held_bytes += len(part)
                if size > limit:
                    raise PayloadTooLarge(f"the body has more than {limit} bytes, which is the limit; send it in parts")
                if self.held_bytes > self._limit_of_all:
                    raise Overloaded(
                        f"bodies of {self._limit_of_all} bytes are being read already; send it again later",
                        retry_after_s=_READING_RETRY_S,
                    )
                parts.append(part)
            return read_json(b"".join(parts), request.headers.get("content-type"), limit)
        finally:
            self.held_bytes -= size

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
from cluster.errors import PayloadTooLarge, PoolhouseError

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


async def read_body(request: Request, limits: Limits) -> dict[str, Any]:
    """Read a request's JSON object, and no further than the limit.

    Raises:
        PayloadTooLarge: it is larger than the limit.
        InvalidRequest: it is no JSON object.
    """
    limit = limits.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise PayloadTooLarge(f"the body has {declared} bytes and the limit is {limit}; send it in parts")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise PayloadTooLarge(f"the body has more than {limit} bytes, which is the limit; send it in parts")
        parts.append(part)
    return read_json(b"".join(parts), request.headers.get("content-type"), limit)

"""Errors on the wire: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import math

import orjson

from cluster.errors import PoolhouseError


def error_body(error: PoolhouseError) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers.

    ``retry_after_s`` becomes ``Retry-After``, a 401 says which scheme to use, and a 408 closes the connection.
    """
    members: dict[str, object] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
        **error.extra,
    }
    headers: dict[str, str] = {}
    retry_after_s = error.extra.get("retry_after_s")
    if isinstance(retry_after_s, (int, float)):
        headers["retry-after"] = str(math.ceil(retry_after_s))
    if error.status == 408:
        # The rest of the body would be taken for the next request.
        headers["connection"] = "close"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    # What a client sent may hold text that has no UTF-8 form; the message must still be printable.
    members["message"] = error.message.encode("utf-8", "replace").decode()
    return error.status, orjson.dumps({"error": members}, default=str), headers


def unexpected_body(request_id: str) -> bytes:
    """Return the body for an error that nobody foresaw: it names the request, and nothing of the inside."""
    message = f"something went wrong here; the server's log has the cause under request id {request_id}"
    return orjson.dumps(
        {"error": {"message": message, "type": "server_error", "param": None, "code": "internal_error"}}
    )

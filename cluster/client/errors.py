"""An error answer → the class of ``cluster.errors`` that the server raised, and the two errors that only a client can meet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import orjson

from cluster.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    PoolhouseError,
    RequestTimeout,
    Unauthorized,
    UnsupportedMediaType,
)


class ServerUnreachable(PoolhouseError):
    """No answer came: the connection was refused or lost, or nothing arrived in time."""

    status = 503
    type = "unavailable_error"
    code = "server_unreachable"


class UnexpectedAnswer(PoolhouseError):
    """An answer came that is not in Poolhouse's format: another server or a proxy sent it, or the versions differ."""

    status = 502
    code = "unexpected_answer"


# For answers that another server, a proxy or a load balancer made, which have no code of ours.
_BY_STATUS: dict[int, type[PoolhouseError]] = {
    401: Unauthorized,
    403: PermissionDenied,
    404: NotFound,
    405: MethodNotAllowed,
    408: RequestTimeout,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    429: Overloaded,
    502: ServerUnreachable,
    503: NotReady,
    504: DeadlineExceeded,
}

_SHOWN_CHARACTERS = 200


def error_of(response: httpx.Response) -> PoolhouseError:
    """Return the error that an answer with a status other than 2xx stands for.

    Its ``extra`` has the error body's further members, ``request_id``, ``retry_after_s`` where the answer names a wait, and
    ``status`` where the answer was not made by Poolhouse.
    """
    members = _members(response)
    code = members.pop("code", None)
    known = {cls.code: cls for cls in _tree(PoolhouseError)}.get(code) if isinstance(code, str) else None
    message, param = members.pop("message", None), members.pop("param", None)
    members.pop("type", None)
    if known is not None and isinstance(message, str):
        error = known(message, param if isinstance(param, str) else None)
    else:
        error = _foreign(response, message)
        members["status"] = response.status_code
    retry_after_s = retry_after(response.headers.get("retry-after"))
    if retry_after_s is not None:
        members.setdefault("retry_after_s", retry_after_s)
    members.setdefault("request_id", response.request.headers.get("x-request-id"))
    error.extra.update(members)
    return error


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for (a number or a date), None for none that can be read."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    # NaN fails both comparisons, which leaves no wait to read.
    return max(0.0, seconds) if -1e9 < seconds < 1e9 else None


def faulty_items(error: PoolhouseError, field: str, items: int) -> list[int]:
    """Return the positions in the request of the items that an error names, in order; empty if it is about something else."""
    param = error.param or ""
    named = [int(digits) for digits in re.findall(rf"\b{re.escape(field)}\[(\d+)\]", param)]
    if not named and items == 1 and param == field:
        named = [0]
    return sorted({position for position in named if position < items})


def relocate(error: PoolhouseError, field: str, indices: Sequence[int], faulty: Sequence[int]) -> PoolhouseError:
    """Return the error with the request's positions replaced by those in the whole iterable.

    Args:
        indices: of the request's items in the whole iterable.
        faulty: positions in the request of the items at fault; ``extra["items"]`` gets their indices.
    """

    def globally(match: re.Match[str]) -> str:
        position = int(match[1])
        return f"{field}[{indices[position]}]" if position < len(indices) else match[0]

    message = re.sub(rf"\b{re.escape(field)}\[(\d+)\]", globally, error.message)
    param = ", ".join(f"{field}[{indices[position]}]" for position in faulty)
    located = type(error)(message, param)
    located.extra = {**error.extra, "items": [indices[position] for position in faulty]}
    return located


def _members(response: httpx.Response) -> dict[str, object]:
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    members = body.get("error") if isinstance(body, dict) else None
    return dict(members) if isinstance(members, dict) else {}


def _foreign(response: httpx.Response, message: object) -> PoolhouseError:
    status = response.status_code
    said = message if isinstance(message, str) else " ".join(response.text[:_SHOWN_CHARACTERS].split())
    text = f"{response.request.url} answered {status} {response.reason_phrase}" + (f": {said}" if said else "")
    if status < 400:
        target = response.headers.get("location")
        hint = f"it sends to {target}; use that as base_url" if target else "check base_url"
        return UnexpectedAnswer(f"{text}; {hint}")
    fallback = InvalidRequest if status < 500 else PoolhouseError
    return _BY_STATUS.get(status, fallback)(text)


def _tree(cls: type[PoolhouseError]) -> Iterator[type[PoolhouseError]]:
    # Parents last: a class that does not set a code of its own must not stand in for the one it inherits from.
    for child in cls.__subclasses__():
        yield from _tree(child)
    yield cls

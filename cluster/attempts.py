"""A request's attempts at an answer: as many as it takes until all parts are of one version, within its time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from cluster.errors import DeadlineExceeded, VersionChanged
from cluster.telemetry.tracing import TRACING
from cluster.types import RequestFacts

Answer = TypeVar("Answer")

CLIENT: ContextVar[str] = ContextVar("client", default="")
"""Who sent the request that is being answered, as ``RequestFacts.client``."""

ARRIVED_S: ContextVar[float | None] = ContextVar("arrived_s", default=None)
"""When the last of that request's body came, monotonic: its time limit begins there, since a large body waits to be parsed."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


async def within_limit(
    name: str,
    request_id: str,
    trace: str | None,
    items: int,
    timeout_s: float,
    attempt: Callable[[RequestFacts], Awaitable[Answer]],
) -> Answer:
    """Run ``attempt`` until it met one version of the model, in a span called ``name``.

    Args:
        timeout_s: from the arrival of the request's body; from now where nothing says when that was.

    Raises:
        DeadlineExceeded: the limit passed.
        Whatever ``attempt`` raises.
    """
    arrived_s, now_s = ARRIVED_S.get(), time.monotonic()
    deadline_s = (now_s if arrived_s is None else arrived_s) + timeout_s
    attributes: dict[str, AttributeValue] = {"poolhouse.request_id": request_id, "poolhouse.items": items}
    try:
        if deadline_s <= now_s:
            raise TimeoutError
        async with asyncio.timeout(deadline_s - now_s):
            with TRACING.span(name, trace, attributes, SpanKind.SERVER) as inner:
                facts = RequestFacts(request_id, deadline_s=deadline_s, trace=inner, client=CLIENT.get())
                return await until_one_version(lambda: attempt(facts))
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the answer was not ready within {timeout_s:g} s; send less at once or a longer timeout_s"
        ) from error


async def until_one_version(attempt: Callable[[], Awaitable[Answer]]) -> Answer:
    """Run ``attempt`` until it does not raise VersionChanged. The caller's time limit ends it otherwise.

    While a new version of a model replaces an old one, parts of both run.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await attempt()
        except VersionChanged:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

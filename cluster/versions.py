"""While a new version of a model replaces an old one, parts of both run: a request is repeated until it met only one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.errors import VersionChanged

Answer = TypeVar("Answer")

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


async def until_one_version(attempt: Callable[[], Awaitable[Answer]]) -> Answer:
    """Run ``attempt`` until it does not raise VersionChanged. The caller's time limit ends it otherwise."""
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await attempt()
        except VersionChanged:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

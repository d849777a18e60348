"""When to try again, how long to wait before it, and when to give up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cluster.errors import DeadlineExceeded, InvalidRequest

# 502 is how a proxy says that its connection to the server was lost, 408 that a body came too slowly, perhaps while others needed
# its room. No other 4xx but 429 can succeed when sent again.
RETRIED_STATUSES = frozenset({408, 429, 502, 503})

_LEAST_TIMEOUT_S = 0.001
_MOST_TIMEOUT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How a client repeats a request that was refused for now or not answered.

    Attributes:
        count: repetitions of one request after the first try; 0 never repeats.
        first_wait_s: before the first repetition; each further wait is twice as long, up to ``longest_wait_s``.
        longest_retry_after_s: a server that asks for a longer wait than this is not waited for; its error is raised.
        read_timeout_s: silence of the server that counts as a lost request, where the call has no ``timeout_s``. The default
            is above the server's own limit of 300 s.
        sleep, uniform, clock: stand-ins for tests; ``uniform`` returns a number in [0, 1).
    """

    count: int = 8
    first_wait_s: float = 0.25
    longest_wait_s: float = 20.0
    longest_retry_after_s: float = 300.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 320.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    def wait_s(self, repetition: int, retry_after_s: float | None) -> float:
        """Return the wait before a repetition (0 is the first).

        Half of the backoff and a tenth of ``Retry-After`` is left to chance, so that clients which were refused together do
        not come back together. The wait is never shorter than ``retry_after_s``.
        """
        # The exponent is bounded because 2.0 ** 1024 overflows.
        backoff_s = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(repetition, 64))
        chance = self.uniform()
        return max(backoff_s * (1 + chance) / 2, (retry_after_s or 0.0) * (1 + chance / 10))


class Deadline:
    """The point in time by which a whole call must be done; ``timeout_s`` None is no limit."""

    def __init__(self, timeout_s: float | None, clock: Callable[[], float]) -> None:
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidRequest(f"timeout_s is {timeout_s!r}; give seconds above 0, or None for no limit", "timeout_s")
        self.timeout_s = timeout_s
        self._clock = clock
        self._end_s = None if timeout_s is None else clock() + timeout_s

    def remaining_s(self) -> float | None:
        """Return the seconds that are left, None without a limit.

        Raises:
            DeadlineExceeded: none are left.
        """
        if self._end_s is None:
            return None
        remaining_s = self._end_s - self._clock()
        if remaining_s <= 0:
            raise self.exceeded()
        return remaining_s

    def exceeded(self) -> DeadlineExceeded:
        """Return the error for a call that is not done in time."""
        return DeadlineExceeded(
            f"the call was not done within its {self.timeout_s:g} s; send less, or a longer timeout_s"
        )


def wire_timeout_s(remaining_s: float) -> float:
    """Return the seconds to send along, in milliseconds' precision and within what the server accepts."""
    return round(min(max(remaining_s, _LEAST_TIMEOUT_S), _MOST_TIMEOUT_S), 3)

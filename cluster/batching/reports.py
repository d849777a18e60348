"""What an encoder replica reports with each answer, so that an ingress can tell how long work would wait."""

from __future__ import annotations

import time
from collections.abc import Callable

# Steps of the speed's moving mean; a micro-batch takes tens of milliseconds, so it follows within a second.
_STEP = 0.1

# A stretch shorter than this says more about the clock than about the engine.
_LEAST_STRETCH_S = 0.02

# An ingress that has not sent for so long waits for nothing here, or is gone.
_SENDER_VALID_S = 3.0


class Throughput:
    """Measures the speed of an engine that is kept busy.

    Only stretches at both ends of which work was waiting count: what an idle engine needs for a lone short text says nothing of
    what it can do. Not thread-safe: the encoder's lock guards it.
    """

    def __init__(self, tokens_per_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.tokens_per_s = tokens_per_s
        self._clock = clock
        self._since_s: float | None = None
        self._tokens = 0

    def add(self, tokens: int, work_waits: bool) -> None:
        """Note that ``tokens`` have just been encoded, and whether more is queued."""
        now_s = self._clock()
        if self._since_s is not None:
            self._tokens += tokens
            took_s = now_s - self._since_s
            if took_s >= _LEAST_STRETCH_S:
                speed = self._tokens / took_s
                last = self.tokens_per_s
                self.tokens_per_s = speed if last is None else last + _STEP * (speed - last)
                self._since_s, self._tokens = now_s, 0
        if not work_waits:
            self._since_s = None
        elif self._since_s is None:
            self._since_s, self._tokens = now_s, 0


class Backlogs:
    """What waits at each ingress, as its messages say. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._senders: dict[str, tuple[int, float]] = {}

    def note(self, sender: str, tokens: int) -> None:
        """Take in an ingress's own count, and forget those that have gone quiet."""
        now_s = self._clock()
        self._senders[sender] = (tokens, now_s)
        for name in [name for name, (_, at_s) in self._senders.items() if now_s - at_s > _SENDER_VALID_S]:
            del self._senders[name]

    def elsewhere(self, sender: str) -> int:
        """Tokens that wait at all ingresses but this one."""
        now_s = self._clock()
        return sum(
            tokens
            for name, (tokens, at_s) in self._senders.items()
            if name != sender and now_s - at_s <= _SENDER_VALID_S
        )

    @property
    def total(self) -> int:
        """Tokens that wait at all ingresses."""
        return self.elsewhere("")

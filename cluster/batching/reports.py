"""What an encoder replica knows of its speed and of all that waits for it: admission reads it in every answer, autoscaling
from the replica.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.types import Backlog

# Steps of the speed's moving mean; a micro-batch takes tens of milliseconds, so it follows within a second.
_STEP = 0.1

# A stretch shorter than this says more about the clock than about the engine.
_LEAST_STRETCH_S = 0.02

# An ingress with work speaks once a second at least; one that has been silent for so long has none here, or is gone.
_VALID_S = 5.0


class Throughput:
    """Measures the speed of an engine that is kept busy.

    Only stretches at both ends of which work was waiting count: what an idle engine needs for a lone short text says nothing of
    what it can do. Not thread-safe: the encoder's lock guards it.
    """

    def __init__(self, tokens_per_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.tokens_per_s = tokens_per_s
        self.has_measured = False
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
                self.has_measured = True
                self._since_s, self._tokens = now_s, 0
        if not work_waits:
            self._since_s = None
        elif self._since_s is None:
            self._since_s, self._tokens = now_s, 0


class Backlogs:
    """What each ingress last said of its work for this encoder. Not thread-safe: the encoder's lock guards it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[Backlog, float]] = {}

    def note(self, backlog: Backlog) -> None:
        """Take in what an ingress says; messages overtake one another, so an older word than the last is passed over."""
        last = self._heard.get(backlog.ingress)
        if last is None or last[0].reported_s <= backlog.reported_s:
            self._heard[backlog.ingress] = (backlog, self._clock())

    def current(self) -> list[Backlog]:
        """The last word of each ingress that has not gone quiet; the others are forgotten."""
        now_s = self._clock()
        self._heard = {
            ingress: (backlog, at_s) for ingress, (backlog, at_s) in self._heard.items() if now_s - at_s <= _VALID_S
        }
        return [backlog for backlog, _ in self._heard.values()]

    def elsewhere(self, own: Backlog | None) -> int:
        """Tokens of all ingresses but the one that ``own`` comes from."""
        return sum(backlog.tokens for backlog in self.current() if own is None or backlog.ingress != own.ingress)


@dataclass(frozen=True, slots=True)
class EncoderState:
    """An encoder at one moment: what it tells autoscaling.

    Attributes:
        pending_tokens: queued or in work here.
        busy_s: seconds that the engine has worked so far; one with all slots busy adds 1 a second.
        tokens_per_s: speed when it is kept busy; None where nothing is known.
        has_measured: that speed comes from work, not from the calibration alone.
        backlogs: of the ingresses that it has heard of lately.
    """

    pending_tokens: int
    busy_s: float
    tokens_per_s: float | None
    has_measured: bool
    backlogs: list[Backlog]

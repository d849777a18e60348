"""How hard an engine works: what autoscaling and the metrics of an encoder are made of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.telemetry.metrics import BATCH_FILL, ENCODE_SECONDS


class EngineLoad:
    """Sums over the engine's calls; several may run at once. Thread-safe.

    Args:
        most_tokens: of one micro-batch; what its fill is a share of.
        slots: calls that the engine runs at once.
        clock: seconds that only grow.
    """

    def __init__(self, most_tokens: int, slots: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_tokens = most_tokens
        self._slots = slots
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[int, tuple[float, int]] = {}
        self._next_call = 0
        self._ended_s = 0.0

    @contextmanager
    def call(self, tokens: int) -> Iterator[None]:
        """Measure one engine call of so many tokens."""
        started_s = self._clock()
        with self._lock:
            number = self._next_call
            self._next_call += 1
            self._running[number] = (started_s, tokens)
        try:
            yield
        finally:
            seconds = self._clock() - started_s
            with self._lock:
                del self._running[number]
                self._ended_s += seconds
            ENCODE_SECONDS.observe(seconds)
            BATCH_FILL.observe(tokens / self._most_tokens)

    @property
    def running(self) -> list[tuple[float, int]]:
        """Seconds so far and tokens of each call that has not come back."""
        with self._lock:
            now_s = self._clock()
            return [(now_s - started_s, tokens) for started_s, tokens in self._running.values()]

    @property
    def busy_s(self) -> float:
        """Seconds that the engine has worked, a call still running included; an engine with all slots busy adds 1 a second."""
        with self._lock:
            now_s = self._clock()
            running_s = sum(now_s - started_s for started_s, _ in self._running.values())
            return (self._ended_s + running_s) / self._slots

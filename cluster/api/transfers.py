"""Bytes on their way from and to clients: what is slow is ended, and what all have together is bounded."""

from __future__ import annotations

import asyncio
import time

from cluster.config import Limits
from cluster.errors import Overloaded, PoolhouseError, RequestTimeout

# Where room is short, who has moved nothing for so long, or so little in this time, makes room for others.
_SLOW_S = 1.0
_SLOW_BYTES_PER_S = 65_536

_RETRY_S = 1


class Transfer:
    """One body that is read, or one answer that is written, by the task that made this.

    Attributes:
        held_bytes: what it has in memory now.
        moving: it waits for its client, and may be ended when that is slow.
    """

    def __init__(self, now_s: float) -> None:
        self.task = asyncio.current_task()
        self.held_bytes = 0
        self.moving = False
        self._ended_by: PoolhouseError | None = None
        self._moved_bytes = 0
        self._begin_s = self._moved_s = self._mark_s = self._before_s = now_s
        self._mark_bytes = self._before_bytes = 0

    def begin(self) -> None:
        """Wait for the client from now on."""
        self.moving = True
        self._begin_s = self._moved_s = self._mark_s = self._before_s = time.monotonic()

    def moved(self, size_bytes: int) -> None:
        """Note that so many bytes came or went."""
        self._moved_bytes += size_bytes
        self._moved_s = time.monotonic()

    def late(self, now_s: float, limits: Limits, window_s: float) -> bool:
        """Whether it has taken too long in all, or moved too little in the last window."""
        if now_s - self._begin_s > limits.transfer_timeout_s:
            return True
        passed_s = now_s - self._mark_s
        if passed_s < window_s:
            return False
        if self._moved_bytes - self._mark_bytes < limits.least_bytes_per_s * passed_s:
            return True
        self._before_s, self._before_bytes = self._mark_s, self._mark_bytes
        self._mark_s, self._mark_bytes = now_s, self._moved_bytes
        return False

    def slowness(self, now_s: float) -> float:
        """How much it is in the way of others: 0 while it is quick, more the longer it has moved nothing."""
        idle_s = now_s - self._moved_s
        if idle_s >= _SLOW_S:
            return idle_s
        age_s = now_s - self._before_s
        if age_s < _SLOW_S:
            return 0.0
        bytes_per_s = (self._moved_bytes - self._before_bytes) / age_s
        return 1.0 - bytes_per_s / _SLOW_BYTES_PER_S if bytes_per_s < _SLOW_BYTES_PER_S else 0.0

    def end(self, error: PoolhouseError) -> None:
        """Stop the task where it waits for the client."""
        self._ended_by = error
        self.moving = False
        self.held_bytes = 0
        if self.task is not None:
            self.task.cancel()

    def cause(self, cancelled: asyncio.CancelledError) -> BaseException:
        """Return what a cancellation of the task means: the error that ended this transfer, or the cancellation itself."""
        if self._ended_by is None or self.task is None or self.task.uncancel() > 0:
            return cancelled
        return self._ended_by


class Transfers:
    """All of one direction.

    Args:
        what: they are, for messages.
        most_bytes: that they may hold together.
        window_s: in which each must move its least.
    """

    def __init__(self, what: str, limits: Limits, most_bytes: int, window_s: float) -> None:
        self._what = what
        self._limits = limits
        self._most_bytes = most_bytes
        self._window_s = window_s
        self._open: set[Transfer] = set()
        self._due = False

    @property
    def held_bytes(self) -> int:
        """What all have in memory now."""
        return sum(transfer.held_bytes for transfer in self._open)

    def open(self) -> Transfer:
        """Begin to account for a transfer of the current task."""
        transfer = Transfer(time.monotonic())
        self._open.add(transfer)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(min(1.0, self._window_s / 4), self._look)
        return transfer

    def close(self, transfer: Transfer) -> None:
        """Forget a transfer."""
        transfer.held_bytes = 0
        self._open.discard(transfer)

    def hold(self, transfer: Transfer, size_bytes: int) -> None:
        """Set what a transfer has in memory. Where there is no room, the slowest others make it.

        Raises:
            Overloaded: there is no room, and all others are quick.
        """
        excess = self.held_bytes - transfer.held_bytes + size_bytes - self._most_bytes
        if excess > 0 and size_bytes > transfer.held_bytes:
            now_s = time.monotonic()
            others = [(other.slowness(now_s), other) for other in self._open if other.moving and other is not transfer]
            for slowness, other in sorted(others, key=lambda pair: -pair[0]):
                if excess <= 0 or not slowness:
                    break
                excess -= other.held_bytes
                other.end(self._too_slow("stalled while others needed its room"))
            if excess > 0:
                raise Overloaded(
                    f"the {self._what} on their way have {self._most_bytes} bytes together, which is the limit; send it again "
                    "later",
                    retry_after_s=_RETRY_S,
                )
        transfer.held_bytes = size_bytes

    def _look(self) -> None:
        now_s = time.monotonic()
        for transfer in list(self._open):
            if transfer.moving and transfer.late(now_s, self._limits, self._window_s):
                transfer.end(
                    self._too_slow(
                        f"took longer than {self._limits.transfer_timeout_s:g} s, or came with less than "
                        f"{self._limits.least_bytes_per_s} bytes a second"
                    )
                )
        self._due = bool(self._open)
        if self._due:
            asyncio.get_running_loop().call_later(min(1.0, self._window_s / 4), self._look)

    def _too_slow(self, why: str) -> RequestTimeout:
        return RequestTimeout(f"one of the {self._what} {why}; send it again, faster or in parts")

"""What is too large for one message: it is sent in parts, at once, and the answers are put together in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster.batching.planning import split_by_bytes
from cluster.errors import MessageTooLarge
from cluster.types import Int64

Work = TypeVar("Work")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Parts(Generic[Work, Result]):
    """How work for one stage is measured, cut and put together again.

    Attributes:
        cap_bytes: of one message, and of its answer.
        sizes: bytes of each item in the message, or in the answer if that is more, int64 ``[n]``.
        shared_bytes: what every part of the work holds besides its items.
        part: returns the items ``[begin, end)``.
        merge: makes one answer of the parts' answers.
        refuse: makes the answer to a single item that cannot be sent; None raises its error for the whole message.
    """

    cap_bytes: int
    sizes: Callable[[Work], Int64]
    shared_bytes: Callable[[Work], int]
    part: Callable[[Work, int, int], Work]
    merge: Callable[[Sequence[Result]], Result]
    refuse: Callable[[Work, MessageTooLarge], Result] | None = None

    def size_bytes(self, work: Work) -> int:
        """Bytes of the work as one message, or of its answer if that is more."""
        return self.shared_bytes(work) + int(self.sizes(work).sum())

    def divide(self, work: Work) -> list[Work]:
        """Cut work that is too large for one message; a single item that is too large alone stays one.

        So does work most of which every part would hold again: a query of megabytes is not sent once for each of its documents.
        """
        room_bytes = self.cap_bytes - self.shared_bytes(work)
        if room_bytes < self.cap_bytes / 2:
            return [work]
        ranges = split_by_bytes(self.sizes(work), room_bytes)
        return [work] if len(ranges) == 1 else [self.part(work, begin, end) for begin, end in ranges]

    async def send(self, send: Callable[[Work], Awaitable[Result]], message: Work) -> Result:
        """Send a message, and where the transport finds it too large all the same, its halves.

        Raises:
            MessageTooLarge: a single item is too large and there is no ``refuse``.
        """
        try:
            return await send(message)
        except MessageTooLarge as error:
            items = len(self.sizes(message))
            if items < 2:
                if self.refuse is None:
                    raise
                return self.refuse(message, error)
        halves = (self.part(message, 0, items // 2), self.part(message, items // 2, items))
        return self.merge(await at_once([self.send(send, half) for half in halves]))


async def at_once(calls: Sequence[Awaitable[Result]]) -> list[Result]:
    """Return the results in order; when one fails, nobody needs the others, and they are cancelled.

    Raises:
        Whatever the first call to fail raises.
    """
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()

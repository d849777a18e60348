"""Natural batching between two stages: messages form when the next stage is free.

At most ``outstanding`` messages of a lane are in flight; whatever arrives meanwhile coalesces into the next one, and so does
what arrives in the same turn of the event loop: requests that one answer has set free go on together. No timers: an idle stage
gets a request at once and alone, a busy one gets larger messages the busier it is. Work whose caller has gone is
dropped: while it waits, at once; in a message, with the last caller of that message, or item by item where the stage can be
told. Work that is too large for one message becomes several.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from cluster.batching.parts import Parts, at_once
from cluster.offload import its_turn
from cluster.types import Lane

# Below this, a message of its own costs more than it spreads.
_LEAST_SHARE_WEIGHT = 64

Work = TypeVar("Work")
Result = TypeVar("Result")


# Told apart by identity: comparing arrays in the work is an error.
@dataclass(slots=True, eq=False)
class _Waiting(Generic[Work, Result]):
    work: Work
    items: int
    weight: int
    size_bytes: int
    lane: Lane
    answer: asyncio.Future[Result]
    message: _Message[Work, Result] | None = None


@dataclass(slots=True)
class _Message(Generic[Work, Result]):
    """What is sent together; ``open`` counts the callers that still wait for it, ``joined`` is what the stage has."""

    parts: list[_Waiting[Work, Result]]
    open: int = 0
    joined: Work | None = None
    carrier: asyncio.Task[None] | None = None


class Dispatcher(Generic[Work, Result]):
    """Sends work to a stage in coalesced messages and gives each sender its own part of the result.

    Args:
        send: carries one message to the stage.
        join: makes one message of several.
        pick: returns the part of a result that belongs to items ``[begin, end)``.
        weigh: returns (items, weight) of a piece of work; both caps bound a message of several pieces.
        outstanding: messages in flight for each lane, asked anew every time, since replicas come and go.
        cap_weight: asked anew for every message.
        replicas: that the stage has; what waits is shared out among those that have no message yet.
        kind: only work of one kind may share a message.
        leave: told of items ``[begin, end)`` of a message on its way that nobody waits for any more, while others of it are.
        parts: bounds messages by bytes; None is no bound.
    """

    def __init__(
        self,
        send: Callable[[Work], Awaitable[Result]],
        join: Callable[[Sequence[Work]], Work],
        pick: Callable[[Result, int, int], Result],
        weigh: Callable[[Work], tuple[int, int]],
        outstanding: Callable[[], int],
        cap_items: int,
        cap_weight: Callable[[], int],
        replicas: Callable[[], int] = lambda: 1,
        kind: Callable[[Work], Hashable] = lambda work: None,
        leave: Callable[[Work, int, int], None] = lambda message, begin, end: None,
        parts: Parts[Work, Result] | None = None,
    ) -> None:
        self._send = send
        self._join = join
        self._pick = pick
        self._weigh = weigh
        self._outstanding = outstanding
        self._cap_items = cap_items
        self._cap_weight = cap_weight
        self._replicas = replicas
        self._kind = kind
        self._leave = leave
        self._parts = parts
        # In order of arrival; what is abandoned leaves at once from any place, with all that it holds.
        self._waiting: dict[Lane, OrderedDict[_Waiting[Work, Result], None]] = {lane: OrderedDict() for lane in Lane}
        self._in_flight = dict.fromkeys(Lane, 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump_is_due = dict.fromkeys(Lane, False)
        self.queued_weight = 0

    @property
    def in_flight(self) -> int:
        """Messages sent and not yet answered."""
        return sum(self._in_flight.values())

    async def submit(self, work: Work, lane: Lane) -> Result:
        """Send ``work`` with the next message of its lane, or in several, and return its own part of the result.

        When the caller is cancelled, work that was not sent yet is dropped; a message that nobody waits for any more is
        cancelled.

        Raises:
            Whatever ``send`` raises for the message that carried the work.
        """
        if self._parts is None:
            return await self._submit(work, 0, lane)
        size_bytes = self._parts.size_bytes(work)
        if size_bytes > self._parts.cap_bytes:
            pieces = self._parts.divide(work)
            if len(pieces) > 1:
                return self._parts.merge(await at_once([self.submit(piece, lane) for piece in pieces]))
        return await self._submit(work, size_bytes, lane)

    async def _submit(self, work: Work, size_bytes: int, lane: Lane) -> Result:
        items, weight = self._weigh(work)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(work, items, weight, size_bytes, lane, answer)
        self._waiting[lane][waiting] = None
        self.queued_weight += weight
        if not self._pump_is_due[lane]:
            self._pump_is_due[lane] = True
            asyncio.get_running_loop().call_soon(self._pump, lane)
        try:
            result = await answer
        except asyncio.CancelledError:
            self._abandon(waiting)
            raise
        # Else the message and its parts hold each other, and all results, until the garbage collector's next full round.
        waiting.message = None
        await its_turn()
        return result

    def _abandon(self, waiting: _Waiting[Work, Result]) -> None:
        message = waiting.message
        if message is None:
            del self._waiting[waiting.lane][waiting]
            self.queued_weight -= waiting.weight
            return
        message.open -= 1
        if message.open == 0 and message.carrier is not None:
            message.carrier.cancel()
        elif message.joined is not None and waiting in message.parts:
            begin = sum(part.items for part in message.parts[: message.parts.index(waiting)])
            self._leave(message.joined, begin, begin + waiting.items)

    def _pump(self, lane: Lane) -> None:
        self._pump_is_due[lane] = False
        while self._waiting[lane] and self._in_flight[lane] < self._outstanding():
            parts = self._gather(lane)
            if not parts:
                break
            message = _Message(parts, len(parts))
            for waiting in parts:
                waiting.message = message
            self._in_flight[lane] += 1
            message.carrier = asyncio.get_running_loop().create_task(self._carry(message))
            self._tasks.add(message.carrier)
            message.carrier.add_done_callback(partial(self._land, lane))

    def _gather(self, lane: Lane) -> list[_Waiting[Work, Result]]:
        queue = self._waiting[lane]
        cap_weight = self._cap_weight()
        idle = self._replicas() - self.in_flight
        if idle > 1:
            cap_weight = min(cap_weight, max(_LEAST_SHARE_WEIGHT, -(-self.queued_weight // idle)))
        message: list[_Waiting[Work, Result]] = []
        cap_bytes = None if self._parts is None else self._parts.cap_bytes
        items = weight = size_bytes = 0
        for head in queue:
            if head.answer.done():
                # Its caller has been cancelled and is about to take it out.
                continue
            full = items + head.items > self._cap_items or weight + head.weight > cap_weight
            full = full or (cap_bytes is not None and size_bytes + head.size_bytes > cap_bytes)
            if message and (full or self._kind(head.work) != self._kind(message[0].work)):
                break
            message.append(head)
            items += head.items
            weight += head.weight
            size_bytes += head.size_bytes
        for sent in message:
            del queue[sent]
        self.queued_weight -= weight
        return message

    def _land(self, lane: Lane, carrier: asyncio.Task[None]) -> None:
        # Not in the carrier itself: one that is cancelled before its first step never runs a line of its own.
        self._tasks.discard(carrier)
        self._in_flight[lane] -= 1
        self._pump(lane)

    async def _carry(self, message: _Message[Work, Result]) -> None:
        # Who has left since the message was formed is left out of it.
        parts = message.parts = [waiting for waiting in message.parts if not waiting.answer.done()]
        if not parts:
            return
        try:
            message.joined = self._join([waiting.work for waiting in parts])
            if self._parts is None:
                result = await self._send(message.joined)
            else:
                result = await self._parts.send(self._send, message.joined)
            begin = 0
            for waiting in parts:
                end = begin + waiting.items
                if not waiting.answer.done():
                    part = result if len(parts) == 1 else self._pick(result, begin, end)
                    waiting.answer.set_result(part)
                begin = end
        except BaseException as error:
            # Every waiting request learns of it; cancellation of this task itself must still end the task.
            for waiting in parts:
                if not waiting.answer.done():
                    waiting.answer.set_exception(_raisable(error))
            if not isinstance(error, Exception):
                raise


def _raisable(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError("the message's carrier was cancelled")

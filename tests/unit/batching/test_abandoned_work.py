"""Work whose caller has gone: dropped while it waits, cancelled when nobody waits for its message any more."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence
from contextlib import suppress

from cluster.batching.dispatcher import Dispatcher
from cluster.types import Lane


class _Stage:
    """Answers a message when told to."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.cancelled: list[list[str]] = []
        self.left: list[list[str]] = []
        self.free = asyncio.Event()
        self.dispatcher = Dispatcher[list[str], list[str]](
            send=self._send,
            join=_join,
            pick=lambda result, begin, end: result[begin:end],
            weigh=lambda work: (len(work), 10 * len(work)),
            outstanding=lambda: 1,
            cap_items=100,
            cap_weight=lambda: 1_000,
            kind=lambda work: work[0][0],
            leave=lambda message, begin, end: self.left.append(message[begin:end]),
        )

    async def _send(self, message: list[str]) -> list[str]:
        self.seen.append(message)
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled.append(message)
            raise
        return [word.upper() for word in message]

    def submit(self, word: str) -> asyncio.Task[list[str]]:
        return asyncio.get_running_loop().create_task(self.dispatcher.submit([word], Lane.INTERACTIVE))


def _join(works: Sequence[list[str]]) -> list[str]:
    return [word for work in works for word in work]


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _cancel(*tasks: asyncio.Task[list[str]]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await _settle()


async def test_waiting_work_is_dropped_with_its_caller() -> None:
    stage = _Stage()
    first = stage.submit("a1")
    await _settle()
    gone, last = stage.submit("a2"), stage.submit("a3")
    await _settle()
    assert stage.dispatcher.queued_weight == 20
    await _cancel(gone)
    assert stage.dispatcher.queued_weight == 10
    stage.free.set()
    assert await first == ["A1"]
    assert await last == ["A3"]
    assert stage.seen == [["a1"], ["a3"]]
    assert stage.dispatcher.queued_weight == 0


async def test_abandoned_work_is_not_kept_while_the_stage_is_stuck() -> None:
    class Word(str):
        """A string that can be referred to weakly."""

    stage = _Stage()
    first = stage.submit("a1")
    await _settle()
    word = Word("a2")
    kept = weakref.ref(word)
    gone = stage.submit(word)
    del word
    await _settle()
    await _cancel(gone)
    del gone
    gc.collect()
    assert kept() is None
    stage.free.set()
    assert await first == ["A1"]


async def test_a_message_goes_on_while_somebody_waits_for_it() -> None:
    stage = _Stage()
    first = stage.submit("a1")
    await _settle()
    second, third = stage.submit("a2"), stage.submit("a3")
    await _settle()
    stage.free.set()
    await first
    stage.free.clear()
    await _settle()
    assert stage.seen[-1] == ["a2", "a3"]
    await _cancel(second)
    assert stage.cancelled == []
    assert stage.left == [["a2"]]
    stage.free.set()
    assert await third == ["A3"]


async def test_a_message_that_nobody_waits_for_is_cancelled_and_its_place_is_free() -> None:
    stage = _Stage()
    gone = stage.submit("a1")
    await _settle()
    waiting = stage.submit("a2")
    await _cancel(gone)
    assert stage.cancelled == [["a1"]]
    stage.free.set()
    assert await waiting == ["A2"]
    await _settle()
    assert stage.dispatcher.in_flight == 0


async def test_a_caller_that_leaves_in_the_moment_of_sending_frees_the_place_too() -> None:
    stage = _Stage()
    gone = stage.submit("a1")
    await asyncio.sleep(0)
    await _cancel(gone)
    stage.free.set()
    assert await stage.submit("a2") == ["A2"]
    await _settle()
    assert stage.dispatcher.in_flight == 0
    assert stage.dispatcher.queued_weight == 0


async def test_work_of_two_kinds_never_shares_a_message() -> None:
    stage = _Stage()
    first = stage.submit("a1")
    await _settle()
    others = [stage.submit(word) for word in ("a2", "b3", "a4")]
    stage.free.set()
    assert await asyncio.gather(first, *others) == [["A1"], ["A2"], ["B3"], ["A4"]]
    assert stage.seen == [["a1"], ["a2"], ["b3"], ["a4"]]


async def test_a_caller_that_leaves_while_its_message_forms_is_left_out_of_it() -> None:
    stage = _Stage()
    gone, stays = stage.submit("a1"), stage.submit("a2")
    # The submits' own turn, and that in which the message is formed and its carrier has not begun.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await _cancel(gone)
    stage.free.set()
    assert await stays == ["A2"]
    assert stage.seen == [["a2"]]

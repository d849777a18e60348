from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence

import numpy as np
import pytest

from cluster.batching.dispatcher import Dispatcher
from cluster.batching.parts import Parts
from cluster.errors import EngineError
from cluster.types import Lane


class _Stage:
    """A stage that answers each word in capitals, one message at a time for each ``release``."""

    def __init__(
        self,
        outstanding: int = 1,
        cap_items: int = 100,
        cap_weight: int = 1_000,
        replicas: int = 1,
        cap_bytes: int | None = None,
    ) -> None:
        self.messages: list[list[str]] = []
        self.arrived: asyncio.Queue[list[str]] = asyncio.Queue()
        self._gate = asyncio.Semaphore(0)
        self.failure: Exception | None = None
        self.dispatcher = Dispatcher[list[str], list[str]](
            send=self._answer,
            join=_join,
            pick=lambda result, begin, end: result[begin:end],
            weigh=lambda words: (len(words), sum(map(len, words))),
            outstanding=lambda: outstanding,
            cap_items=cap_items,
            cap_weight=lambda: cap_weight,
            replicas=lambda: replicas,
            parts=None if cap_bytes is None else _parts(cap_bytes),
        )

    async def _answer(self, words: list[str]) -> list[str]:
        self.messages.append(words)
        self.arrived.put_nowait(words)
        await self._gate.acquire()
        if self.failure is not None:
            raise self.failure
        return [word.upper() for word in words]

    def release(self, messages: int = 1) -> None:
        for _ in range(messages):
            self._gate.release()

    def submit(self, *words: str, lane: Lane = Lane.INTERACTIVE) -> asyncio.Task[list[str]]:
        return asyncio.create_task(self.dispatcher.submit(list(words), lane))


def _parts(cap_bytes: int) -> Parts[list[str], list[str]]:
    """A byte for each letter, and one for each message."""
    return Parts(
        cap_bytes,
        lambda words: np.asarray([len(word) for word in words], dtype=np.int64),
        lambda words: 1,
        lambda words, begin, end: words[begin:end],
        _join,
    )


def _join(works: Sequence[list[str]]) -> list[str]:
    return [word for work in works for word in work]


async def test_an_idle_stage_gets_a_lone_request_at_once() -> None:
    stage = _Stage()
    answer = stage.submit("one")
    assert await stage.arrived.get() == ["one"]
    stage.release()
    assert await answer == ["ONE"]


async def test_what_arrives_while_the_stage_is_busy_goes_on_as_one_message_each_with_its_own_answer() -> None:
    stage = _Stage()
    first = stage.submit("one")
    await stage.arrived.get()
    later = [stage.submit("two", "three"), stage.submit("four")]
    await asyncio.sleep(0)
    stage.release(2)
    assert await first == ["ONE"]
    assert [await answer for answer in later] == [["TWO", "THREE"], ["FOUR"]]
    assert stage.messages == [["one"], ["two", "three", "four"]]


async def test_what_arrives_in_one_turn_of_the_event_loop_goes_on_together() -> None:
    stage = _Stage(outstanding=2)
    answers = [stage.submit(word) for word in ("one", "two", "three")]
    assert await stage.arrived.get() == ["one", "two", "three"]
    stage.release()
    assert [await answer for answer in answers] == [["ONE"], ["TWO"], ["THREE"]]


@pytest.mark.parametrize(("cap_items", "cap_weight"), [(2, 1_000), (100, 6)])
async def test_messages_are_capped_in_items_and_weight(cap_items: int, cap_weight: int) -> None:
    stage = _Stage(cap_items=cap_items, cap_weight=cap_weight)
    answers = [stage.submit(word) for word in ("abc", "def", "ghi", "jkl", "mno")]
    stage.release(3)
    assert [await answer for answer in answers] == [["ABC"], ["DEF"], ["GHI"], ["JKL"], ["MNO"]]
    assert [len(message) for message in stage.messages] == [2, 2, 1]


async def test_work_over_the_cap_is_a_message_of_its_own() -> None:
    stage = _Stage(cap_items=1)
    answer = stage.submit("a", "b", "c")
    stage.release()
    assert await answer == ["A", "B", "C"]


async def test_one_lane_does_not_wait_for_the_other() -> None:
    stage = _Stage()
    bulk = stage.submit("bulk", lane=Lane.BULK)
    await stage.arrived.get()
    interactive = stage.submit("now")
    assert await stage.arrived.get() == ["now"]
    stage.release(2)
    assert (await bulk, await interactive) == (["BULK"], ["NOW"])


async def test_a_lost_message_fails_all_that_it_carried_and_the_next_one_goes_on() -> None:
    stage = _Stage()
    stage.failure = EngineError("lost")
    answers = [stage.submit("a"), stage.submit("b")]
    stage.release()
    for answer in answers:
        with pytest.raises(EngineError, match="lost"):
            await answer
    stage.failure = None
    stage.release()
    assert await stage.submit("c") == ["C"]
    assert stage.dispatcher.in_flight == 0
    assert stage.dispatcher.queued_weight == 0


async def test_what_waits_is_shared_out_among_replicas_without_a_message() -> None:
    stage = _Stage(outstanding=6, replicas=3)
    answers = [stage.submit(letter * 40) for letter in "abcdef"]
    assert [await stage.arrived.get() for _ in range(3)] == [[a * 40, b * 40] for a, b in ("ab", "cd", "ef")]
    more = [stage.submit(letter * 40) for letter in "gh"]
    # All replicas have one now: the rest travels together.
    assert await stage.arrived.get() == ["g" * 40, "h" * 40]
    stage.release(4)
    assert len(await asyncio.gather(*answers, *more)) == 8


async def test_little_work_is_not_shared_out() -> None:
    stage = _Stage(outstanding=6, replicas=3)
    answers = [stage.submit(letter * 10) for letter in "abcdef"]
    assert await stage.arrived.get() == [letter * 10 for letter in "abcdef"]
    stage.release()
    await asyncio.gather(*answers)


async def test_an_answer_goes_with_its_last_user_and_not_with_the_garbage_collector() -> None:
    class Answer(list[str]):
        """A list that can be referred to weakly."""

    dispatcher = Dispatcher[list[str], list[str]](
        send=lambda words: asyncio.sleep(0, Answer(words)),
        join=_join,
        pick=lambda result, begin, end: Answer(result[begin:end]),
        weigh=lambda words: (len(words), 1),
        outstanding=lambda: 1,
        cap_items=100,
        cap_weight=lambda: 100,
    )
    gc.disable()
    try:
        answers = await asyncio.gather(*(dispatcher.submit([word], Lane.INTERACTIVE) for word in ("a", "b")))
        gone = [weakref.ref(answer) for answer in answers]
        del answers
        await asyncio.sleep(0)
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


async def test_work_that_is_too_large_for_one_message_becomes_several_and_one_answer() -> None:
    stage = _Stage(outstanding=9, cap_bytes=8)
    answer = stage.submit("one", "two", "three", "tremendous", "four", "a")
    stage.release(9)
    assert await answer == ["ONE", "TWO", "THREE", "TREMENDOUS", "FOUR", "A"]
    assert stage.messages == [["one", "two"], ["three"], ["tremendous"], ["four", "a"]]


async def test_what_coalesces_stays_below_the_bytes_of_a_message() -> None:
    stage = _Stage(outstanding=9, cap_bytes=8)
    answers = [stage.submit(word) for word in ("one", "two", "three", "a")]
    stage.release(9)
    assert [await answer for answer in answers] == [["ONE"], ["TWO"], ["THREE"], ["A"]]
    assert stage.messages == [["one", "two"], ["three", "a"]]


async def test_a_caller_that_leaves_takes_all_parts_of_its_work_along() -> None:
    stage = _Stage(outstanding=1, cap_bytes=8)
    first = stage.submit("one")
    await stage.arrived.get()
    large = stage.submit("two", "three", "four")
    await asyncio.sleep(0)
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    stage.release(9)
    assert await first == ["ONE"]
    assert await stage.submit("five") == ["FIVE"]
    assert stage.messages == [["one"], ["five"]]
    assert stage.dispatcher.queued_weight == 0

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from cluster.batching.dispatcher import Dispatcher
from cluster.offload import INLINE_S, Offload, its_turn
from cluster.types import Lane

LONG_S = 10.0
SHORT_S = 2 * INLINE_S


@pytest.fixture
def offload() -> Iterator[Offload]:
    made = Offload(threads=2)
    yield made
    made.close()


async def test_brief_work_is_done_where_it_is_asked_for(offload: Offload) -> None:
    assert await offload.run(INLINE_S, threading.get_ident) == threading.get_ident()
    assert await offload.run(SHORT_S, threading.get_ident) != threading.get_ident()


async def test_errors_of_the_work_are_raised(offload: Offload) -> None:
    for cost_s in (0.0, SHORT_S):
        with pytest.raises(ZeroDivisionError):
            await offload.run(cost_s, lambda: 1 // 0)


async def test_a_place_is_held_until_the_thread_has_ended_and_abandoned_work_is_dropped(offload: Offload) -> None:
    begun, end = threading.Semaphore(0), threading.Event()
    running: list[int] = []

    def work(number: int) -> None:
        running.append(number)
        begun.release()
        end.wait(30)

    tasks = [asyncio.create_task(offload.run(SHORT_S, work, number)) for number in range(200)]
    for _ in range(2):
        assert await asyncio.to_thread(begun.acquire, timeout=30)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    next_one = asyncio.create_task(offload.run(SHORT_S, len, "four"))
    await asyncio.sleep(0)
    assert running == [0, 1]
    assert not next_one.done()
    end.set()
    assert await asyncio.wait_for(next_one, 30) == 4
    assert running == [0, 1]


async def test_long_work_leaves_a_thread_to_shorter_work(offload: Offload) -> None:
    end = threading.Event()
    long = [asyncio.create_task(offload.run(LONG_S, end.wait, 30)) for _ in range(5)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(offload.run(SHORT_S, len, "four"), 30) == 4
    end.set()
    assert await asyncio.gather(*long) == [True] * 5


async def test_what_the_work_holds_is_let_go_once_when_the_thread_ends(offload: Offload) -> None:
    begun, end = threading.Event(), threading.Event()
    let_go: list[str] = []

    def work() -> None:
        begun.set()
        end.wait(30)

    first = asyncio.create_task(offload.run_held(LONG_S, lambda: let_go.append("first"), work))
    waiting = asyncio.create_task(offload.run_held(LONG_S, lambda: let_go.append("waiting"), work))
    assert await asyncio.to_thread(begun.wait, 30)
    for task in (first, waiting):
        task.cancel()
    await asyncio.gather(first, waiting, return_exceptions=True)
    assert let_go == ["waiting"]
    end.set()
    await asyncio.wait_for(offload.run(LONG_S, len, ""), 30)
    assert let_go == ["waiting", "first"]


class Turns:
    """Counts what runs in each turn of the event loop, and is a clock on which each piece of work takes 2 ms."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.works = [0]
        self.watching = True

    def thread_time(self) -> float:
        return self.now_s

    def work(self) -> None:
        self.now_s += 0.002
        self.works[-1] += 1

    async def watch(self) -> None:
        while self.watching:
            self.works.append(0)
            await asyncio.sleep(0)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    made = Turns()
    monkeypatch.setattr("cluster.offload.time.thread_time", made.thread_time)
    return made


async def test_what_is_set_free_together_goes_on_in_several_turns_in_order(turns: Turns) -> None:
    free = asyncio.Event()
    done: list[int] = []

    async def wait(number: int) -> None:
        await free.wait()
        await its_turn()
        turns.work()
        done.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(30)]
    await asyncio.sleep(0)
    watching = asyncio.create_task(turns.watch())
    free.set()
    await asyncio.gather(*tasks)
    turns.watching = False
    await watching
    assert done == list(range(30))
    assert max(turns.works) == 3


async def test_callers_of_one_message_go_on_in_several_turns(turns: Turns) -> None:
    async def send(work: int) -> int:
        return work

    dispatcher = Dispatcher[int, int](
        send, sum, lambda result, begin, end: end - begin, lambda work: (1, 1), lambda: 1, 100, lambda: 100
    )

    async def submit() -> None:
        assert await dispatcher.submit(1, Lane.BULK) == 1
        turns.work()

    watching = asyncio.create_task(turns.watch())
    await asyncio.gather(*(submit() for _ in range(30)))
    turns.watching = False
    await watching
    assert sum(turns.works) == 30
    assert max(turns.works) == 3


def test_a_loop_that_was_closed_in_the_middle_of_a_turn_does_not_hold_up_the_next(turns: Turns) -> None:
    async def ask() -> None:
        await its_turn()
        turns.now_s += 1.0

    for _ in range(2):
        coroutine = ask()
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(asyncio.wait_for(coroutine, 30))
        finally:
            loop.close()

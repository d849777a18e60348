from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from cluster.offload import INLINE_S, Offload

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

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from cluster.client import ServerUnreachable
from tests.unit.client.conftest import Double


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "poolhouse-client"]


def test_closing_ends_the_thread_and_may_be_repeated(double: Double) -> None:
    client = double.client()
    (thread,) = _threads()
    client.close()
    assert not thread.is_alive()
    client.close()


def test_a_closed_client_says_so(double: Double) -> None:
    client = double.client()
    client.close()
    for call in (lambda: client.embed(["1"]), client.models):
        with pytest.raises(ServerUnreachable, match="the client is closed"):
            call()


def test_a_client_that_is_forgotten_ends_its_thread(double: Double) -> None:
    client = double.client()
    client.embed(["1"])
    (thread,) = _threads()
    del client
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_leaving_a_stream_early_ends_what_is_in_flight(double: Double) -> None:
    started, ended = threading.Event(), threading.Event()

    async def before(body: dict[str, Any]) -> None:
        if body["input"] == ["0"]:
            # Not before another is in flight: what is left early would otherwise be nothing.
            assert await asyncio.to_thread(started.wait, 10)
            return
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    double.before = before
    with double.client(request_items=1) as client:
        stream = client.embed_iter(map(str, range(100)))
        assert next(stream)[0] == 0
        assert started.wait(10)
        stream.close()
        assert ended.wait(10)


def test_closing_ends_a_call_of_another_thread(double: Double) -> None:
    started = threading.Event()
    outcome: list[BaseException] = []

    async def before(body: dict[str, Any]) -> None:
        started.set()
        await asyncio.Event().wait()

    double.before = before
    client = double.client()

    def call() -> None:
        try:
            client.embed(["1"])
        except BaseException as error:  # noqa: BLE001 - whatever ends the call is looked at below
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert started.wait(10)
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert [type(error) for error in outcome] == [ServerUnreachable]


def test_several_threads_may_share_a_client(double: Double) -> None:
    results: dict[int, list[float]] = {}
    with double.client(request_items=3) as client:

        def call(first: int) -> None:
            results[first] = client.embed(str(first + number) for number in range(20))[:, 0].tolist()

        threads = [threading.Thread(target=call, args=(first,)) for first in range(0, 400, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert results == {first: [float(first + number) for number in range(20)] for first in range(0, 400, 100)}


async def test_the_blocking_client_works_beside_a_running_loop(double: Double) -> None:
    with double.client() as client:
        assert client.embed(["4"]).tolist() == [[4, 4]]

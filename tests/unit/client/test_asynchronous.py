"""What is particular to the asyncio client; the rest it shares with the blocking one, whose tests run through it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from cluster.client import AsyncClient
from cluster.errors import InvalidRequest
from cluster.types import PoolingType
from tests.support.pipelines import expected_rows, ids_of
from tests.unit.client.conftest import Double

TEXTS = [f"text {number}" for number in range(11)]


async def _async(texts: list[str]) -> AsyncIterator[str]:
    for text in texts:
        await asyncio.sleep(0)
        yield text


async def test_both_kinds_of_iterables_will_do(async_client: AsyncClient) -> None:
    expected = np.concatenate([expected_rows(text, PoolingType.MEAN) for text in TEXTS])
    np.testing.assert_array_equal(await async_client.embed(TEXTS, pooling="mean"), expected)
    np.testing.assert_array_equal(await async_client.embed(_async(TEXTS), pooling="mean"), expected)
    matrices = await async_client.embed(_async(TEXTS), pooling="none")
    assert [len(matrix) for matrix in matrices if matrix is not None] == [len(ids_of(text)) for text in TEXTS]


async def test_iterating(async_client: AsyncClient) -> None:
    pairs = [pair async for pair in async_client.embed_iter(_async(TEXTS), pooling="mean")]
    assert [index for index, _ in pairs] == list(range(11))
    batches = [len(batch) async for batch in async_client.embed_batches(TEXTS)]
    assert batches == [4, 4, 3]


async def test_arguments_are_checked_before_iterating(async_client: AsyncClient) -> None:
    with pytest.raises(InvalidRequest, match="one string"):
        async_client.embed_iter("a text")
    with pytest.raises(InvalidRequest, match="of type int"):
        async_client.embed_batches(5)  # type: ignore[arg-type]


async def test_the_other_methods(async_client: AsyncClient) -> None:
    ids = await async_client.tokenize("a few words")
    assert [token.id for token in await async_client.tokens("a few words")] == ids.tolist()
    assert await async_client.detokenize(ids) == "a few words"
    assert (await async_client.models())[0]["id"] == "fake"
    assert (await async_client.info())["default_model"] == "fake"
    assert await async_client.health() == {"status": "ok"}


async def test_rerank_and_classify(double: Double) -> None:
    async with double.async_client(request_items=2) as client:
        ranking = await client.rerank("q", ["3", "6", "1"], return_documents=True)
        assert ranking.documents == ["6", "3", "1"]
        assert (await client.classify(["1", "2", "3"])).labels == ["label of 1", "label of 2", "label of 3"]


class TestInFlight:
    async def test_as_many_as_allowed_and_no_more(self, double: Double) -> None:
        running = most = 0
        all_there = asyncio.Event()

        async def before(body: dict[str, Any]) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                all_there.set()
            await all_there.wait()
            await asyncio.sleep(0)
            running -= 1

        double.before = before
        async with double.async_client(in_flight=3, request_items=1) as client:
            vectors = await client.embed([str(number) for number in range(12)])
        assert most == 3
        assert vectors[:, 0].tolist() == list(range(12))

    async def test_the_bound_holds_for_all_calls_of_a_client_together(self, double: Double) -> None:
        running = most = 0

        async def before(body: dict[str, Any]) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            for _ in range(5):
                await asyncio.sleep(0)
            running -= 1

        double.before = before
        async with double.async_client(in_flight=2, request_items=1) as client:
            await asyncio.gather(*(client.embed(["1", "2", "3"]) for _ in range(4)))
        assert most == 2

    async def test_later_answers_wait_for_a_slow_first(self, double: Double) -> None:
        others_done = asyncio.Event()

        async def before(body: dict[str, Any]) -> None:
            if body["input"] == ["0"]:
                await others_done.wait()
            elif body["input"] == ["3"]:
                others_done.set()

        double.before = before
        async with double.async_client(in_flight=2, request_items=1) as client:
            assert [index async for index, _ in client.embed_iter(map(str, range(10)))] == list(range(10))
        # The slot beside the slow request went on: 3 was sent before 0 was answered.
        assert [body["input"] for body in double.bodies[:4]] == [["0"], ["1"], ["2"], ["3"]]

    async def test_leaving_early_ends_what_is_in_flight(self, double: Double) -> None:
        started, ended = asyncio.Event(), 0

        async def before(body: dict[str, Any]) -> None:
            nonlocal ended
            if body["input"] == ["0"]:
                return
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended += 1

        double.before = before
        async with double.async_client(in_flight=3, request_items=1) as client:
            stream = client.embed_iter(map(str, itertools.count()))
            assert (await anext(stream))[0] == 0
            await started.wait()
            await stream.aclose()
            assert ended == len(double.bodies) - 1 > 0

    async def test_cancelling_a_call_ends_what_is_in_flight(self, double: Double) -> None:
        started, ended = asyncio.Event(), asyncio.Event()

        async def before(body: dict[str, Any]) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        double.before = before
        async with double.async_client() as client:
            call = asyncio.create_task(client.embed(["1"]))
            await started.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert ended.is_set()

"""A client that goes away ends the work that was done for it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from cluster.api.application import create_application
from cluster.telemetry.metrics import REGISTRY
from cluster.types import TokenBatch, VectorBatch
from tests.support.pipelines import fake_config, local_pipeline
from tests.support.servers import served


async def test_work_of_a_client_that_left_is_cancelled_and_the_account_is_empty() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def never_answer(name: str, batch: TokenBatch) -> VectorBatch:
        loop.call_soon_threadsafe(begun.set)
        try:
            return await asyncio.Future[VectorBatch]()
        finally:
            loop.call_soon_threadsafe(ended.set)

    with local_pipeline(fake_config(), encode=never_answer) as local:
        with served(create_application(local.pipeline, local.check_ready)) as url:
            async with httpx.AsyncClient() as client:
                request = asyncio.create_task(client.post(f"{url}/v1/embeddings", json={"input": "a text"}))
                await asyncio.wait_for(begun.wait(), 30)
                assert local.pipeline.stages.admission.backlog_tokens > 0
                request.cancel()
                await asyncio.gather(request, return_exceptions=True)
                await asyncio.wait_for(ended.wait(), 30)
        assert local.pipeline.stages.admission.backlog_tokens == 0
        assert local.pipeline.stages.queued_tokens == {"wide": 0, "narrow": 0}


async def test_a_request_that_the_server_cancels_is_counted_as_closed_by_its_client() -> None:
    def closed() -> float:
        labels = {"path": "/v1/embeddings", "model": "", "pooling": "", "status": "499", "api_key": ""}
        return REGISTRY.get_sample_value("poolhouse_requests_total", labels) or 0.0

    begun = asyncio.Event()

    async def never_answer(name: str, batch: TokenBatch) -> VectorBatch:
        begun.set()
        return await asyncio.Future[VectorBatch]()

    before = closed()
    with local_pipeline(fake_config(), encode=never_answer) as local:
        transport = httpx.ASGITransport(app=create_application(local.pipeline, local.check_ready))
        async with httpx.AsyncClient(transport=transport, base_url="http://poolhouse") as client:
            request = asyncio.create_task(client.post("/v1/embeddings", json={"input": "a text"}))
            await asyncio.wait_for(begun.wait(), 30)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
    assert closed() == before + 1


async def test_a_refusal_says_when_to_come_back() -> None:
    config: dict[str, Any] = {"limits": {"max_queued_tokens": 5}, "batching": {"outstanding": 1}}
    begun, go_on = asyncio.Event(), asyncio.Event()

    with local_pipeline(fake_config(**config)) as local:
        encode = local.pipeline.stages.senders.encode

        async def wait(name: str, batch: TokenBatch) -> VectorBatch:
            begun.set()
            await go_on.wait()
            return await encode(name, batch)

        with local_pipeline(fake_config(**config), encode=wait) as busy:
            application = create_application(busy.pipeline, busy.check_ready)
            transport = httpx.ASGITransport(app=application)
            async with httpx.AsyncClient(transport=transport, base_url="http://poolhouse") as client:
                first = asyncio.create_task(client.post("/v1/embeddings", json={"input": "some words"}))
                await asyncio.wait_for(begun.wait(), 30)
                refused = await client.post("/v1/embeddings", json={"input": "some more words"})
                go_on.set()
                assert (await first).status_code == 200
                assert (await client.post("/v1/embeddings", json={"input": "some more words"})).status_code == 200
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "overloaded"

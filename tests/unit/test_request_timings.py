"""The timing headers of whole requests, in this process, with messages that cross as they do between processes."""

from __future__ import annotations

import asyncio
import pickle
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from cluster.config import PoolhouseConfig
from cluster.errors import VersionChanged
from cluster.fused import fused_stages
from cluster.pipeline import Pipeline
from cluster.pooler import PieceBatch, PoolerBatch
from cluster.telemetry.metrics import REGISTRY
from cluster.texts import TextBatch
from cluster.types import TokenBatch, VectorBatch
from tests.support.mixed_requests import mixed_requests
from tests.support.pipelines import LocalPipeline, fake_config, http_client
from tests.support.timings import PARTS, checked_parts_ms

COST_S = 2e-4


def _config(slots: int = 4, cost_s: float = COST_S, **batching: Any) -> PoolhouseConfig:
    encoder = {
        "model": "fake",
        "engine": "fake",
        "micro_batch_tokens": 512,
        "slots": slots,
        "fake_seconds_per_token": cost_s,
    }
    narrow = {"model": "short", "engine": "fake"}
    return fake_config(encoders={"wide": encoder, "narrow": narrow}, batching={"message_tokens": 1024, **batching})


@contextmanager
def _application(config: PoolhouseConfig, wiring: str) -> Iterator[LocalPipeline]:
    with fused_stages(config) as stages:
        here = stages.senders

        async def tokenize(batch: TextBatch) -> TokenBatch:
            return _crossed(await here.tokenize(_crossed(batch)))

        async def encode(name: str, batch: TokenBatch) -> VectorBatch:
            return _crossed(await here.encode(name, _crossed(batch)))

        async def finish(batch: PoolerBatch) -> PieceBatch:
            return _crossed(await here.finish(_crossed(batch)))

        apart = replace(here, tokenize=tokenize, encode=encode, finish=finish)
        senders = apart if wiring == "split" else here
        yield LocalPipeline(Pipeline(config, stages.descriptions, senders), stages.encoders, stages.check_ready, stages)


def _crossed(message: Any) -> Any:
    return pickle.loads(pickle.dumps(message))


def _requests(seed: int) -> list[tuple[str, dict[str, Any]]]:
    chance = random.Random(seed)
    words = [f"w{number}" for number in range(40)]
    texts = [" ".join(chance.choices(words, k=chance.choice([1, 5, 60]))) for _ in range(12)]
    requests = mixed_requests(30, seed)
    # Few different texts, so that many are equal to others in flight or kept from before.
    requests += [("/v1/embeddings", {"input": chance.choices(texts, k=chance.choice([1, 3, 40]))}) for _ in range(20)]
    requests += [
        (
            "/v1/rerank",
            {
                "query": "w1 w2",
                "documents": chance.choices(texts, k=chance.choice([1, 30])),
                "strategy": strategy,
            },
        )
        for strategy in ("cross_encoder", "late_interaction", "similarity") * 4
    ]
    requests += [("/classify", {"input": chance.choices(texts, k=3)}) for _ in range(4)]
    requests += [("/score", {"text_1": "w1", "text_2": chance.choices(texts, k=3)}) for _ in range(4)]
    chance.shuffle(requests)
    return requests


@pytest.mark.parametrize("cache_bytes", [0, 1_000_000])
@pytest.mark.parametrize("wiring", ["fused", "split"])
async def test_parts_of_any_mix_are_never_more_than_the_whole(wiring: str, cache_bytes: int) -> None:
    with _application(_config(cache_bytes=cache_bytes), wiring) as local:
        async with http_client(local) as client:

            async def ask(path: str, body: dict[str, Any], after_s: float) -> None:
                await asyncio.sleep(after_s)
                sent_s = time.monotonic()
                answer = await client.post(path, json=body, timeout=60)
                took_ms = (time.monotonic() - sent_s) * 1e3
                assert answer.status_code == 200, answer.text
                assert answer.headers["x-poolhouse-build"] == "fake"
                assert float(checked_parts_ms(answer.headers)["total"]) <= took_ms + 0.02

            chance = random.Random(cache_bytes)
            await asyncio.gather(*(ask(path, body, chance.uniform(0, 0.5)) for path, body in _requests(3)))


@pytest.mark.parametrize("wiring", ["fused", "split"])
async def test_one_request_on_four_slots_is_encoded_no_longer_than_it_takes(wiring: str) -> None:
    texts = [" ".join(f"t{text}w{word}" for word in range(48)) for text in range(80)]
    engine_s = 80 * 50 * COST_S
    with _application(_config(), wiring) as local:
        async with http_client(local) as client:
            answer = await client.post("/v1/embeddings", json={"input": texts})
    parts = checked_parts_ms(answer.headers)
    assert float(parts["encode"]) >= engine_s / 4 * 1e3


async def test_a_request_behind_another_waits_for_as_long_as_that_takes() -> None:
    # No slot takes its text together with the other's: each fills a micro-batch by itself.
    first, second = (" ".join(f"{name}{word}" for word in range(400)) for name in "ab")
    with _application(_config(slots=1, cost_s=1e-3), "fused") as local:
        async with http_client(local) as client:
            answers = await asyncio.gather(
                *(client.post("/v1/embeddings", json={"input": text}) for text in (first, second))
            )
    early, late = sorted((checked_parts_ms(answer.headers) for answer in answers), key=lambda parts: parts["total"])
    assert float(early["encode"]) >= 400
    assert float(late["encode"]) >= 400
    assert float(late["queue"]) >= 300
    assert late["encode"] < late["total"]


async def test_the_time_of_former_attempts_is_part_of_the_whole() -> None:
    refused = 0
    with fused_stages(_config(cost_s=0)) as stages:

        async def encode(name: str, batch: TokenBatch) -> VectorBatch:
            nonlocal refused
            if refused < 2:
                refused += 1
                raise VersionChanged("another version")
            return await stages.senders.encode(name, batch)

        pipeline = Pipeline(_config(), stages.descriptions, replace(stages.senders, encode=encode))
        async with http_client(LocalPipeline(pipeline, stages.encoders, stages.check_ready, stages)) as client:
            answer = await client.post("/v1/embeddings", json={"input": "text"})
    parts = checked_parts_ms(answer.headers)
    # Two pauses, the second twice as long as the first.
    assert float(parts["queue"]) >= 150


@pytest.mark.parametrize("wiring", ["fused", "split"])
async def test_all_builds_that_answered_a_request_are_named(wiring: str) -> None:
    encoder = {"model": "fake", "engine": "fake"}
    config = fake_config(
        encoders={"one": encoder, "two": encoder, "narrow": {"model": "short", "engine": "fake"}},
        batching={"message_tokens": 64, "cache_bytes": 1_000_000},
    )
    texts = [f"text {number}" for number in range(100)]
    with _application(config, wiring) as local:
        for name in ("one", "two"):
            local.encoders[name].engine.build = f"library {name}"
        async with http_client(local) as client:
            for _ in range(2):
                # The second time, all comes from the cache.
                answer = await client.post("/v1/embeddings", json={"input": texts})
                assert answer.headers["x-poolhouse-build"] == "library one, library two"
            alone = await client.post("/v1/embeddings", json={"input": "a text"})
            assert alone.headers["x-poolhouse-build"] in ("library one", "library two")
            body = {"query": "q", "documents": texts, "strategy": "late_interaction"}
            ranked = await client.post("/v1/rerank", json=body)
            assert ranked.headers["x-poolhouse-build"] == "library one, library two"


async def test_each_request_that_is_answered_is_counted_once_with_what_it_waited() -> None:
    def count(pooling: str) -> float:
        labels = {"model": "fake", "pooling": pooling}
        return REGISTRY.get_sample_value("poolhouse_queue_seconds_count", labels) or 0.0

    before = {pooling: count(pooling) for pooling in ("mean", "none", "rank")}
    documents = [f"document {number} " * 100 for number in range(40)]
    with _application(_config(cost_s=0, cache_bytes=1_000_000), "fused") as local:
        async with http_client(local) as client:
            for _ in range(2):
                # The second time, all comes from the cache.
                assert (await client.post("/v1/embeddings", json={"input": ["a"]})).status_code == 200
            for strategy in ("cross_encoder", "late_interaction"):
                body = {"query": "q", "documents": documents, "strategy": strategy, "truncate": "end"}
                assert (await client.post("/v1/rerank", json=body)).status_code == 200
    assert {pooling: count(pooling) - before[pooling] for pooling in before} == {"mean": 2, "none": 1, "rank": 1}


@pytest.mark.parametrize("wiring", ["fused", "split"])
async def test_the_parts_account_for_what_clients_wait_at_twice_the_capacity(wiring: str) -> None:
    # 40 texts of 50 tokens at once, again and again: twice as many as the micro-batches of both slots hold.
    config = _config(slots=2, cost_s=2e-4)
    waited_ms: list[float] = []
    told_ms: list[float] = []

    async def worker(client: httpx.AsyncClient, number: int) -> None:
        for turn in range(4):
            text = " ".join(f"w{number}t{turn}n{word}" for word in range(48))
            sent_s = time.monotonic()
            answer = await client.post("/v1/embeddings", json={"input": text}, timeout=60)
            waited_ms.append((time.monotonic() - sent_s) * 1e3)
            parts = checked_parts_ms(answer.headers)
            told_ms.append(float(sum(parts[part] for part in PARTS)))

    with _application(config, wiring) as local:
        async with http_client(local) as client:
            await asyncio.gather(*(worker(client, number) for number in range(40)))
    assert len(told_ms) == 160
    assert sum(told_ms) >= 0.8 * sum(waited_ms)

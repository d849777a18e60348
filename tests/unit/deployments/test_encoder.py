"""The Encoder deployment's own part, without a cluster."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.errors import ReplicaLost
from cluster.quarantine import Bound
from cluster.types import RequestFacts, TokenBatch, VectorBatch, offsets_of
from deployments import encoder
from deployments.encoder import Encoder

BATCH = TokenBatch(
    fingerprint="f",
    token_ids=np.zeros(0, dtype=np.int32),
    offsets=offsets_of([]),
    pooling=np.zeros(0, dtype=np.uint8),
    second_segment=np.zeros(0, dtype=np.int32),
    cut_tokens=np.zeros(0, dtype=np.int32),
    owner=np.zeros(0, dtype=np.int32),
    requests=[],
)


@pytest.fixture
def deployment() -> Encoder:
    made = Encoder.__new__(Encoder)
    made._args, made._name, made._isolating = {}, "e", asyncio.Lock()
    made._isolations, made._timeout_s = Bound(2, 600.0), 60.0
    return made


async def test_isolation_whose_caller_has_gone_ends_before_the_next_one_begins(
    deployment: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = most = 0
    begun, finish = threading.Semaphore(0), threading.Event()

    def isolated(args: dict[str, Any], name: str, batch: TokenBatch, stop: threading.Event) -> VectorBatch:
        nonlocal running, most
        running += 1
        most = max(most, running)
        begun.release()
        # As an item that takes a while: the thread sees only after it that it should stop.
        assert stop.wait(30) or finish.wait(30)
        assert finish.wait(30)
        running -= 1
        return VectorBatch("f", np.zeros(0, dtype=np.float32), offsets_of([]), np.zeros(0, dtype=np.int32))

    monkeypatch.setattr(encoder, "encode_isolated", isolated)
    first = asyncio.create_task(deployment.isolate(BATCH))
    assert await asyncio.to_thread(begun.acquire, timeout=30)
    first.cancel()
    second = asyncio.create_task(deployment.isolate(BATCH))
    for _ in range(20):
        await asyncio.sleep(0)
    assert running == 1
    finish.set()
    with suppress(asyncio.CancelledError):
        await first
    assert first.cancelled()
    second.cancel()
    with suppress(asyncio.CancelledError):
        await second
    assert most == 1


async def test_a_text_is_tried_though_its_request_has_no_time_left(
    deployment: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float | None] = []

    def isolated(args: dict[str, Any], name: str, batch: TokenBatch, stop: threading.Event) -> VectorBatch:
        left.extend(request.remaining_s for request in batch.requests)
        return VectorBatch("f", np.zeros(0, dtype=np.float32), offsets_of([]), np.zeros(0, dtype=np.int32))

    monkeypatch.setattr(encoder, "encode_isolated", isolated)
    now_s = time.monotonic()
    requests = [RequestFacts("r", deadline_s=deadline_s) for deadline_s in (now_s - 1, now_s + 9_000, None)]
    await deployment.isolate(replace(BATCH, requests=requests))
    short, long, none = left
    assert short is not None
    assert long is not None
    assert 0 < short <= 60 < long
    assert none is None


async def test_isolations_at_a_replica_are_bounded(deployment: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = VectorBatch("f", np.zeros(0, dtype=np.float32), offsets_of([]), np.zeros(0, dtype=np.int32))
    monkeypatch.setattr(encoder, "encode_isolated", lambda *arguments: answer)
    assert await deployment.isolate(BATCH) is answer
    assert await deployment.isolate(BATCH) is answer
    with pytest.raises(ReplicaLost) as caught:
        await deployment.isolate(BATCH)
    assert caught.value.extra["retry_after_s"]

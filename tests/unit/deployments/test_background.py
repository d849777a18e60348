from __future__ import annotations

import asyncio
import logging

import pytest

from cluster.telemetry.metrics import REGISTRY
from deployments.background import repeat


def failures() -> float:
    return REGISTRY.get_sample_value("poolhouse_background_failures_total", {"work": "test"}) or 0.0


async def test_a_step_that_fails_in_any_way_is_logged_counted_and_taken_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = [ValueError("surprise"), asyncio.CancelledError(), MemoryError(), KeyError("label")]
    count, before, done = len(errors), failures(), asyncio.Event()

    async def step() -> None:
        if errors:
            raise errors.pop()
        done.set()

    with caplog.at_level(logging.ERROR, "poolhouse"):
        task = asyncio.create_task(repeat("test", lambda: 0.001, step))
        await asyncio.wait_for(done.wait(), 20)
    assert not task.done()
    task.cancel()
    assert (await asyncio.gather(task, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    assert failures() == before + count
    assert len(caplog.records) == count


async def test_its_end_ends_the_step_that_runs() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def step() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(repeat("test", lambda: 0.0, step))
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()
    await asyncio.wait_for(ended.wait(), 20)

"""Engines that break in a process that goes on, since they are out of memory."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.cluster import Cluster, wait_until
from tests.chaos.load import Client

OUT_OF_MEMORY_ID = 14
FAULTS = {OUT_OF_MEMORY_ID: "out_of_memory"}
"""For ``fake_faults`` of an encoder."""


async def break_engine(cluster: Cluster, deployment: str, token_id: int, within_s: float) -> tuple[int | None, float]:
    """Send a text that breaks the engine of one replica, and wait until Serve has replaced the replica.

    Returns:
        The answer's status, None where there was none when the replica had been replaced; and when it had been, in seconds.
    """
    client = Client(cluster.port)
    before, begun_s = set(cluster.processes(deployment)), time.monotonic()
    asked = asyncio.create_task(client.post({"input": [[token_id]]}))

    def replaced() -> bool:
        running = set(cluster.processes(deployment))
        return len(running) >= len(before) and running != before

    try:
        await asyncio.to_thread(wait_until, replaced, within_s, lambda: f"{deployment} still runs as {before}")
        took_s = time.monotonic() - begun_s
        await asyncio.to_thread(wait_until, cluster.answers, within_s, lambda: "the new replica answers nothing")
        return (asked.result()[0] if asked.done() and asked.exception() is None else None), took_s
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        client.close()

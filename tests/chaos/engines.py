"""Engines that break in a process that goes on, since they are out of memory."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.cluster import Cluster, wait_until
from tests.chaos.load import Client

OUT_OF_MEMORY_ID = 14
FAULTS = {OUT_OF_MEMORY_ID: "out_of_memory"}
"""For ``fake_faults`` of an encoder."""


async def break_engine(cluster: Cluster, deployment: str, token_id: int, within_s: float) -> tuple[int, float]:
    """Send a text that breaks the engine of one replica, and wait until Serve has replaced the replica.

    Returns:
        The answer's status, and when the replica had been replaced, in seconds.
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
        # It may be tried alone still, in a process that loads the model first.
        status, _ = await asyncio.wait_for(asked, within_s)
        return status, took_s
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        client.close()

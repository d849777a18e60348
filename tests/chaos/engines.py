"""Engines that break in a process that goes on: out of memory, or never back from a call."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.cluster import Cluster, wait_until
from tests.chaos.load import Client

OUT_OF_MEMORY_ID, HANG_ID = 14, 15
FAULTS = {OUT_OF_MEMORY_ID: "out_of_memory", HANG_ID: "hang"}
"""For ``fake_faults`` of an encoder."""


async def break_engine(
    cluster: Cluster, deployment: str, token_id: int, within_s: float, leave_after_s: float | None = None
) -> tuple[int | None, float]:
    """Send a text that breaks the engine of one replica, and wait until Serve has replaced the replica.

    Args:
        leave_after_s: when its client leaves, so that the text goes to no other replica.

    Returns:
        The answer's status, None where there was none when the replica had been replaced; and when it had been, in seconds.
    """
    client = Client(cluster.port)
    before, begun_s = set(cluster.processes(deployment)), time.monotonic()
    asked = asyncio.create_task(asyncio.wait_for(client.post({"input": [[token_id]]}), leave_after_s))

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

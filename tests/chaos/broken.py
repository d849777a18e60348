"""A replica that encodes nothing any more though its process lives and answers: its engine is stuck, or its thread is gone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.experiments import body_of, fake_args, is_right
from tests.chaos.load import Client, Load, Outcome

_BREAKING_ID = 14

_POLL_S = 0.5
_WAITS_S = 3.0
_AFTER_S = 5.0


@dataclass(slots=True)
class Broken:
    """What clients saw until the replica was replaced, and after that.

    Attributes:
        replaced_s: until two replicas ran without it; None where that did not happen.
    """

    during: Outcome
    after: Outcome
    replaced_s: float | None


def breaking_args(wiring: str, fault: str) -> dict[str, Any]:
    """An engine with a token that breaks it: ``hang`` never comes back, ``out_of_memory`` ends the thread that called it."""
    return fake_args(wiring, fake_faults={_BREAKING_ID: fault})


async def break_one(cluster: Cluster, deployment: str, rate_per_s: float, most_s: float) -> Broken:
    """Send one text with that token while others ask, and wait until its replica is replaced."""
    before = set(cluster.processes(deployment))
    load = Load(cluster.port, rate_per_s, body_of, is_right)
    over = asyncio.Event()
    running = asyncio.create_task(load.run(most_s, over))
    begun_s = time.monotonic()
    # Its own limit is short, so that a stuck replica keeps it.
    client = Client(cluster.port)
    status, content = await client.post({"input": [[5, _BREAKING_ID]], "timeout_s": _WAITS_S})
    client.close()
    assert status != 200, content
    replaced_s = None
    while replaced_s is None and not running.done():
        await asyncio.sleep(_POLL_S)
        now = set(await asyncio.to_thread(cluster.processes, deployment))
        if len(now) == len(before) and before - now:
            replaced_s = time.monotonic() - begun_s
    over.set()
    during = await running
    after = await Load(cluster.port, rate_per_s, body_of, is_right).run(_AFTER_S)
    return Broken(during, after, replaced_s)

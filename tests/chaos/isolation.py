"""A message that has killed two encoders is tried text by text; what happens to the innocent texts in it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Cluster, wait_until
from tests.chaos.experiments import POISON_ID, WORDS, fake_args, is_right, text_of
from tests.chaos.front import commands
from tests.chaos.load import Client, Load, Outcome

_CHILD_WITHIN_S = 90.0
INNOCENT = 3
_AGAIN_S = 6.0
_RATE_PER_S = 1.0

# A text is a second and a half in the engine, long enough to be met there; what an encoder tries at its start takes half of one.
_COST_S = 0.01
_WORDS = 150
_STILL_S = 0.9
_MODULE = b"cluster.isolat"


@dataclass(slots=True)
class Asked:
    """What became of a deadly text and of the innocent ones beside it.

    Attributes:
        status, content: the answer to the request that had them all.
        again: the innocent ones, each sent again by itself.
    """

    status: int
    content: str
    again: Outcome


def isolation_args() -> dict[str, Any]:
    """The split wiring with an engine that takes a second and a half for a long text."""
    return fake_args(fake_seconds_per_token=_COST_S)


async def disturb_isolation(cluster: Cluster, disturb: Callable[[int], object]) -> Asked:
    """Send innocent texts with a deadly one behind them; ``disturb`` gets the process id of the child that works on one."""
    client = Client(cluster.port)
    body = {"input": [*map(_long_text, range(INNOCENT)), [POISON_ID]]}
    asked = asyncio.create_task(client.post(body))
    child = await asyncio.to_thread(_working_child)
    await asyncio.to_thread(disturb, child)
    status, content = await asked
    client.close()
    load = Load(cluster.port, _RATE_PER_S, lambda number: {"input": _long_text(number % INNOCENT)}, is_right)
    again = await load.run(_AGAIN_S)
    return Asked(status, content[:300].decode("utf-8", "replace"), again)


async def send_deadly(
    cluster: Cluster, rate_per_s: float, times: int = 2
) -> tuple[list[tuple[int, str, float]], Outcome]:
    """Send a deadly text between innocent ones, some times in a row, while other clients ask; returns status, body, seconds."""
    load = Load(cluster.port, rate_per_s, lambda number: {"input": text_of(number)}, is_right)
    over = asyncio.Event()
    running = asyncio.create_task(load.run(120.0, over))
    await asyncio.sleep(1.0)
    answers = []
    for _ in range(times):
        client = Client(cluster.port)
        begun_s = time.monotonic()
        status, content = await client.post({"input": [[5], [POISON_ID], [7]]})
        answers.append((status, content[:300].decode("utf-8", "replace"), time.monotonic() - begun_s))
        client.close()
        await asyncio.sleep(_APART_S)
    over.set()
    return answers, await running


# Longer than a burst of failures, and than a replacement takes to start.
_APART_S = 8.0


def _long_text(number: int) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=_WORDS))


def _working_child() -> int:
    """Process id of a child that has loaded its engine and waits inside it."""
    found = 0

    def waits() -> bool:
        nonlocal found
        for pid, words in commands().items():
            if any(word.startswith(_MODULE) for word in words):
                before = _asleep_at(pid)
                time.sleep(_STILL_S)
                if before and before == _asleep_at(pid):
                    found = pid
        return bool(found)

    wait_until(waits, _CHILD_WITHIN_S, lambda: "no isolated encoder works")
    return found


def _asleep_at(pid: int) -> int:
    """CPU time of a process so far if it sleeps, so that a machine with no core to spare for it is no sleep; else 0."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12]) if fields[0] == "S" else 0

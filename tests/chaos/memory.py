"""A replica that gets no more memory: its allocations fail from one moment on, as in a cgroup that is full."""

from __future__ import annotations

import asyncio
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.chaos.experiments import are_right, matrices_of
from tests.chaos.load import Load, Outcome

_MORE_BYTES = 2**20
_POLL_S = 0.5


@dataclass(slots=True)
class Starved:
    """What clients saw while one replica got no memory, and after that.

    Attributes:
        replaced_s: until another process ran in its place; None where it stayed.
    """

    during: Outcome
    after: Outcome
    replaced_s: float | None


async def starve(cluster: Cluster, deployment: str, rate_per_s: float, most_s: float, after_s: float) -> Starved:
    """Take further memory from one of two replicas while clients ask for token matrices, until it was replaced."""
    process = cluster.a_process(deployment)
    load = Load(cluster.port, rate_per_s, matrices_of, are_right)
    over = asyncio.Event()
    running = asyncio.create_task(load.run(most_s, over))
    await asyncio.sleep(1.0)
    _allow_no_more(process)
    begun_s = time.monotonic()
    replaced_s = None
    while replaced_s is None and not running.done():
        await asyncio.sleep(_POLL_S)
        processes = await asyncio.to_thread(cluster.processes, deployment)
        if len(processes) == 2 and process not in processes:
            replaced_s = time.monotonic() - begun_s
    over.set()
    during = await running
    after = await Load(cluster.port, rate_per_s, matrices_of, are_right).run(after_s)
    return Starved(during, after, replaced_s)


def _allow_no_more(process: int) -> None:
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + _MORE_BYTES
    resource.prlimit(process, resource.RLIMIT_AS, (limit, limit))

"""A rolling update under load, at the pace of encoders that take long to load."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.experiments import under_load
from tests.chaos.front import commands
from tests.chaos.load import Outcome

_POLL_S = 0.1


async def update_slowly(
    cluster: Cluster, args: dict[str, Any], replicas: dict[str, int], load_s: float, rate_per_s: float
) -> Outcome:
    """Replace everything while requests come in; each new encoder's process is stopped for so long before it starts."""
    old = set(_encoders())
    over = threading.Event()

    def hold() -> None:
        held: dict[int, float] = {}
        while not over.wait(_POLL_S) or held:
            for pid in set(_encoders()) - old - held.keys():
                os.kill(pid, signal.SIGSTOP)
                held[pid] = time.monotonic()
            for pid, since_s in list(held.items()):
                if over.is_set() or time.monotonic() - since_s > load_s:
                    os.kill(pid, signal.SIGCONT)
                    old.add(pid)
                    del held[pid]

    def deploy() -> None:
        holder = threading.Thread(target=hold)
        holder.start()
        try:
            cluster.deploy(args, replicas)
        finally:
            over.set()
            holder.join()

    return await under_load(cluster, rate_per_s, deploy, 5.0)


def _encoders() -> list[int]:
    return [pid for pid, words in commands().items() if words[0].startswith(b"ray::ServeReplica:poolhouse:Encoder-e")]

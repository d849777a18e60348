"""Serve's way in on this machine, HAProxy and the actor that manages it, found by process id and ended."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import ray

from tests.chaos.cluster import Cluster, wait_until
from tests.chaos.experiments import under_load
from tests.chaos.load import Outcome

_BACK_WITHIN_S = 60.0
_MORE_S = 12.0


def haproxies() -> list[int]:
    """Process ids of this node's HAProxies: one, and during a reload or after an accident several."""
    marker = f"/{ray.get_runtime_context().get_node_id()}/haproxy.cfg".encode()
    return [
        pid
        for pid, words in commands().items()
        if words[0].endswith(b"haproxy") and any(word.endswith(marker) for word in words)
    ]


def managers() -> list[int]:
    """Process ids of the actors that manage an HAProxy."""
    return [pid for pid, words in commands().items() if words[0].startswith(b"ray::HAProxyManager")]


async def kill_haproxy(cluster: Cluster, rate_per_s: float, more_s: float = _MORE_S) -> Outcome:
    """End HAProxy with signal 9 and go on asking."""

    def kill() -> None:
        killed = haproxies()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bool(set(haproxies()) - set(killed)), _BACK_WITHIN_S, lambda: "no HAProxy runs")

    return await under_load(cluster, rate_per_s, kill, more_s)


async def kill_manager(cluster: Cluster, rate_per_s: float) -> tuple[Outcome, Outcome]:
    """End the actor that manages HAProxy; when there is a new one, an ingress replica, of which HAProxy has to learn."""

    def kill() -> None:
        killed = managers()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bool(set(managers()) - set(killed)), _BACK_WITHIN_S, lambda: "no HAProxyManager runs")

    first = await under_load(cluster, rate_per_s, kill, _MORE_S)

    def replace_ingresses() -> None:
        # Both, one after the other: whoever still goes by the old list then has nobody left to ask.
        for process in cluster.processes("Ingress"):
            os.kill(process, signal.SIGKILL)
            cluster.wait_for_replicas("Ingress", 2, without=process, within_s=60)

    second = await under_load(cluster, rate_per_s, replace_ingresses, 5.0)
    return first, second


def commands() -> dict[int, list[bytes]]:
    """Command lines of the processes of this machine, by process id."""
    found: dict[int, list[bytes]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[0]:
                    found[int(entry.name)] = words
    return found

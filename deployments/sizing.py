"""What a configuration asks of a cluster: CPUs, GPUs, memory and machines, at least and at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.contradictions import replica_range

Options = Mapping[str, Any]


def sizing_lines(
    names: list[str], given: Mapping[str, Options], memory_bytes: Mapping[str, int], *, isolates: bool = False
) -> list[str]:
    """Return a line for each deployment, and two for the whole.

    Args:
        memory_bytes: of one replica, for the deployments where it is known.
        isolates: a replica may load a second copy into a child process, one at a time, to try inputs alone.
    """
    lines = []
    for name in names:
        options = given.get(name, {})
        least, most = replica_range(options)
        count = str(least) if least == most else f"{least}-{most}"
        lines.append(f"  {name}: {count} replica(s), {_cpus(options):g} CPU, {_gpus(options):g} GPU each")
    return [
        *lines,
        *(
            f"  at {word}: {_total(names, given, memory_bytes, end, isolates)}"
            for end, word in enumerate(("least", "most"))
        ),
    ]


def machines_with_gpus(shares: list[float]) -> int:
    """Return how many machines of one GPU hold these shares of GPUs; a replica of several GPUs counts as so many.

    First-fit decreasing: exact for shares that divide one another, such as 1, 0.5 and 0.25.
    """
    room: list[float] = []
    whole = 0
    for share in sorted(shares, reverse=True):
        if share >= 1:
            whole += round(share)
            continue
        for index, free in enumerate(room):
            if share <= free + 1e-9:
                room[index] = free - share
                break
        else:
            room.append(1.0 - share)
    return whole + len(room)


def _total(
    names: list[str], given: Mapping[str, Options], memory_bytes: Mapping[str, int], end: int, isolates: bool
) -> str:
    counts = {name: replica_range(given.get(name, {}))[end] for name in names}
    cpus = sum(count * _cpus(given.get(name, {})) for name, count in counts.items())
    shares = [_gpus(given.get(name, {})) for name, count in counts.items() for _ in range(count)]
    shares = [share for share in shares if share]
    memory = sum(count * memory_bytes.get(name, 0) for name, count in counts.items())
    parts = [f"{sum(counts.values())} replicas", f"{cpus:g} CPUs"]
    if shares:
        parts.append(f"{sum(shares):g} GPUs ({machines_with_gpus(shares)} machine(s) of one GPU)")
    else:
        parts.append("no GPU (1 machine, if it has the CPUs)")
    if memory:
        parts.append(f"{memory / 1e9:.1f} GB in encoders")
    if memory and isolates:
        parts.append(f"{2 * memory / 1e9:.1f} GB while each of them tries an input alone")
    return ", ".join(parts)


def _cpus(options: Options) -> float:
    return float((options.get("ray_actor_options") or {}).get("num_cpus", 1))


def _gpus(options: Options) -> float:
    return float((options.get("ray_actor_options") or {}).get("num_gpus") or 0)

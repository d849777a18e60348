"""``make mix``: requests of every kind at once; every answer is judged, and so is the memory of the server's processes.

python -m tests.mix [--requests 100000] [--wiring fused] runs one wiring or both: fused with the default model, split with the
fake engine. Every answer of status 200 must be right, every other of a status that docs/ promise for its kind, none a
fault of the server (5xx), and after a fifth of the requests no replica may grow by more than 5 %. The exit status is 1 where
this is not held.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from cluster.config import parse_config
from tests.mix.good import good_kinds
from tests.mix.lanes import Lanes, Tally
from tests.mix.memory import replica_memory_mb
from tests.mix.reference import Reference
from tests.mix.refused import MAX_BODY_BYTES, MAX_ITEMS, MAX_TOKENS, refused_kinds
from tests.mix.requests import Texts
from tests.mix.scores import score_kinds
from tests.support.clusters import load_config, serve_cluster

ROOT = Path(__file__).parents[2]
_PARTS = 10
_WARM_PARTS = 2
"""Parts of the requests, after which what is allocated once has been."""
_MOST_GROWTH = 0.05
_LIMIT_S = 1_800.0

Memory = dict[str, float]


def document(wiring: str) -> dict[str, Any]:
    """The Serve configuration: ``configs/local.yaml``, or the same with every stage by itself over the fake engine."""
    application = load_config(ROOT / "configs" / f"{'local' if wiring == 'fused' else 'split'}.yaml")["applications"][0]
    args = application["args"]
    args["limits"] = {"max_body_bytes": MAX_BODY_BYTES, "max_items": MAX_ITEMS, "max_tokens": MAX_TOKENS}
    if wiring == "split":
        args["models"] = {"fake": {"source": "fake"}}
        args["encoders"] = {"minilm": {"model": "fake", "engine": "fake"}}
        for deployment in application["deployments"]:
            deployment["ray_actor_options"] = {"num_cpus": 0.1}
    return {"applications": [application]}


async def send(lanes: Lanes, requests: int) -> list[Memory]:
    """Send all requests in parts; returns the memory after each part, when nothing is in flight."""
    started_s = time.monotonic()
    samples = []
    for part in range(_PARTS):
        count = requests // _PARTS
        sent = await lanes.send(count, started_s + _LIMIT_S)
        samples.append(await asyncio.to_thread(replica_memory_mb))
        memory = ", ".join(f"{name} {mb:.0f} MB" for name, mb in samples[-1].items())
        print(f"{(part + 1) * count} requests, {time.monotonic() - started_s:.0f} s: {memory}", flush=True)
        if sent < count:
            break
    return samples


def judge(lanes: Lanes, samples: list[Memory]) -> list[str]:
    """Return what was not held."""
    faults = [f"{name}: {tally.wrong} wrong answers" for name, tally in lanes.tallies.items() if tally.wrong]
    faults += [
        f"{name}: {tally.unexpected} answers of a status that is not promised"
        for name, tally in lanes.tallies.items()
        if tally.unexpected
    ]
    server_faults = sum(
        count for tally in lanes.tallies.values() for status, count in tally.statuses.items() if status >= 500
    )
    if server_faults:
        faults.append(f"{server_faults} answers 5xx")
    if len(samples) < _PARTS:
        return [*faults, f"not over within {_LIMIT_S:g} s"]
    warm, last = samples[_WARM_PARTS - 1], samples[-1]
    if warm.keys() != last.keys():
        faults.append(f"replicas were replaced: {', '.join(warm)} became {', '.join(last)}")
    faults += [
        f"{name} grew from {warm[name]:.0f} to {mb:.0f} MB"
        for name, mb in last.items()
        if name in warm and mb > (1 + _MOST_GROWTH) * warm[name]
    ]
    return faults


def print_tables(lanes: Lanes, samples: list[Memory]) -> None:
    """Print what came of each kind, and the memory of each replica, as Markdown."""
    print("| Kind | Requests | Answers by status | Wrong | p50, ms | p99, ms |\n|---|---|---|---|---|---|")
    for name, tally in lanes.tallies.items():
        print(_row(name, tally))
    print(f"\n{lanes.resent} were sent again since the server had closed an idle connection.\n")
    first, last = samples[min(_WARM_PARTS, len(samples)) - 1], samples[-1]
    print(f"| Replica | MB after {_WARM_PARTS * 100 // _PARTS} % | MB at the end | Growth |\n|---|---|---|---|")
    for name, mb in last.items():
        before = first.get(name, float("nan"))
        print(f"| {name} | {before:.0f} | {mb:.0f} | {mb / before - 1:.1%} |")


def _row(name: str, tally: Tally) -> str:
    statuses = ", ".join(f"{status or 'closed'}: {count}" for status, count in sorted(tally.statuses.items()))
    times = f"{tally.percentile_ms(50):.1f} | {tally.percentile_ms(99):.1f}"
    return f"| {name} | {tally.sent} | {statuses or 'none waited for'} | {tally.wrong} | {times} |"


def run(wiring: str, requests: int) -> bool:
    """Run one wiring; returns whether all was held."""
    configuration = document(wiring)
    reference = Reference(parse_config(configuration["applications"][0]["args"]))
    texts = Texts(reference)
    kinds = [*good_kinds(reference, texts), *score_kinds(reference, texts), *refused_kinds(reference, texts)]
    print(f"\n{wiring}: {requests} requests, {reference.model}\n", flush=True)
    with serve_cluster() as cluster:
        cluster.deploy(configuration)
        lanes = Lanes(int(cluster.url.rpartition(":")[2]), kinds)
        started_s = time.monotonic()
        samples = asyncio.run(send(lanes, requests))
        print(f"\n{time.monotonic() - started_s:.0f} s\n")
    print_tables(lanes, samples)
    faults = judge(lanes, samples)
    for fault in faults:
        print(f"not held: {fault}")
    print(f"{wiring}: {'not held' if faults else 'held'}", flush=True)
    return not faults


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--wiring", choices=["fused", "split"])
    options = parser.parse_args()
    wirings = [options.wiring] if options.wiring else ["fused", "split"]
    held = {wiring: run(wiring, options.requests) for wiring in wirings}
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Where ingress and planner stop scaling: encoders that only wait, a fixed time for each token, in growing number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.servers import poolhouse
from cluster.benchmark.generator import Schedule
from cluster.benchmark.report import format_table
from cluster.benchmark.runs import run_window
from cluster.benchmark.workloads import WORKLOADS

SECONDS_PER_TOKEN = 0.0005
REPLICAS = (1, 2, 4, 8, 16)
QUICK_REPLICAS = (1, 4)
# Connections for each replica: enough to keep it busy, few enough that the load settles soon.
LOADS = (("short", 16), ("batch", 2))


def run(log: Path, seconds: float, say: Callable[[str], None], *, quick: bool) -> list[dict[str, Any]]:
    """Measure every number of replicas; returns one record for each number and load."""
    records: list[dict[str, Any]] = []
    args = {
        "models": {"fake": {"source": "fake"}},
        "encoders": {
            "fake": {
                "model": "fake",
                "engine": "fake",
                "threads": 1,
                "slots": 1,
                "micro_batch_tokens": 256,
                "fake_seconds_per_token": SECONDS_PER_TOKEN,
            }
        },
    }
    for replicas in QUICK_REPLICAS if quick else REPLICAS:
        say(f"scaling: {replicas} replica(s)")
        with poolhouse("split", log, args, replicas) as server:
            for workload, by_replica in LOADS:
                connections = max(4, by_replica * replicas)
                schedule = Schedule(connections, warm_up_s=2.0, duration_s=seconds)
                window = run_window(server, WORKLOADS[workload], schedule)
                capacity = replicas / SECONDS_PER_TOKEN
                cpu = {kind: taken / window.seconds for kind, taken in (window.server_cpu_s or {}).items()}
                records.append(
                    {
                        "replicas": replicas,
                        "workload": workload,
                        "connections": connections,
                        "requests_per_s": window.requests_per_s,
                        "tokens_per_s": window.tokens_per_s,
                        "of_capacity": (window.tokens_per_s or 0.0) / capacity,
                        "errors": window.errors,
                        "client_cores": window.client_cpu_s / window.seconds,
                        "cores": cpu,
                    }
                )
    return records


def table(records: list[dict[str, Any]]) -> list[str]:
    """Return the records as text."""
    head = ["fake encoder, split", "replicas", "requests/s", "tokens/s", "of capacity", "client", "cores by process"]
    rows = [head]
    for record in records:
        busiest = sorted(record["cores"].items(), key=lambda pair: -pair[1])[:4]
        rows.append(
            [
                f"{record['workload']}, {record['connections']} connections",
                str(record["replicas"]),
                f"{record['requests_per_s']:.1f}",
                f"{record['tokens_per_s'] or 0.0:.0f}",
                f"{record['of_capacity']:.2f}",
                f"{record['client_cores']:.2f}",
                ", ".join(f"{kind} {cores:.2f}" for kind, cores in busiest),
            ]
        )
    return format_table(rows)

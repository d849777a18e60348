"""Memory of the server's replicas: what each process has for itself and its share of what several have."""

from __future__ import annotations

from pathlib import Path


def replica_memory_mb(application: str = "poolhouse") -> dict[str, float]:
    """Return the proportional set size of each replica's process in MB, by deployment and process id."""
    # Serve reads its settings when it is imported.
    from ray.serve.context import _get_global_client

    deployments = _get_global_client().get_serve_details()["applications"][application]["deployments"]
    return {
        f"{name} ({replica['pid']})": pss_mb(replica["pid"])
        for name, deployment in deployments.items()
        for replica in deployment["replicas"]
    }


def pss_mb(pid: int) -> float:
    """Return a process's proportional set size in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6

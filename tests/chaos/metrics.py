"""The metrics of a running cluster, as Prometheus reads them."""

from __future__ import annotations

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.cluster import wait_until

_PREFIX = "ray_"
_SEEN_WITHIN_S = 60.0

# What must be at zero where nobody waits.
WAITING = (
    "poolhouse_queued_tokens",
    "poolhouse_pending_tokens",
    "serve_num_ongoing_requests_at_replicas",
    "serve_num_ongoing_http_requests",
    "serve_deployment_queued_queries",
    "serve_replica_processing_queries",
)


def metrics() -> dict[str, float]:
    """Each of Poolhouse's and Serve's metrics of this node, its series added up."""
    node = next(node for node in ray.nodes() if node["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(url, timeout=10).text):
        for sample in family.samples:
            if sample.name.startswith(("ray_poolhouse_", "ray_serve_")):
                name = sample.name.removeprefix(_PREFIX)
                sums[name] = sums.get(name, 0.0) + sample.value
    return sums


def metrics_at_rest(least_requests: int) -> dict[str, float]:
    """Return the metrics as soon as they tell of so many requests, and of none that waits or is worked on.

    Raises:
        TimeoutError: with those that are not at zero.
    """
    seen: dict[str, float] = {}

    def at_rest() -> bool:
        nonlocal seen
        seen = metrics()
        # A replica sends all its metrics at once, so these are no older than the requests that they tell of.
        return seen.get("poolhouse_requests_total", 0.0) >= least_requests and not any(map(seen.get, WAITING))

    wait_until(at_rest, _SEEN_WITHIN_S, lambda: str({name: seen.get(name) for name in WAITING}))
    return seen

"""The metrics of a running cluster, as Prometheus reads them."""

from __future__ import annotations

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families

_PREFIX = "ray_"


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

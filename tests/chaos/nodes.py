"""A node of the cluster is lost with every replica on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve
from ray.cluster_utils import Cluster as Nodes

from tests.chaos.cluster import Cluster, set_environment
from tests.chaos.experiments import fake_args, two_of_each, under_load
from tests.chaos.load import Outcome
from tests.support.ports import free_port

_STORE_BYTES = 100 * 2**20


@contextmanager
def _two_nodes() -> Iterator[tuple[Cluster, Any, Any]]:
    set_environment()
    nodes = Nodes(
        initialize_head=True,
        head_node_args={"num_cpus": 4, "object_store_memory": _STORE_BYTES, "include_dashboard": False},
    )
    try:
        worker = nodes.add_node(num_cpus=4, object_store_memory=_STORE_BYTES)
        nodes.wait_for_nodes()
        ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
        port = free_port()
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield Cluster(port), nodes, worker
        serve.shutdown()
    finally:
        ray.shutdown()
        nodes.shutdown()


async def lose_a_node(wiring: str, rate_per_s: float) -> Outcome:
    """Spread two replicas of every stage over two nodes, and end one node's processes under load."""
    with _two_nodes() as (cluster, nodes, worker):
        cluster.deploy(fake_args(wiring, fake_seconds_per_token=1 / 2_000), two_of_each(wiring), spread=True)
        return await under_load(
            cluster, rate_per_s, lambda: nodes.remove_node(worker, allow_graceful=False), more_s=15.0, retry=True
        )

"""Ray clusters of one machine that a test starts, and ends with everything in them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.haproxy import haproxy_program
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]

allows_metrics_interval = pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
"""For tests that deploy an ``autoscaling_config`` of ours with this key.

Ray 2.60 names two environment variables as its successors and reads neither: the key alone sets how often replicas report.
"""


def serve_environment() -> dict[str, str]:
    """The variables of ``configs/serve.env``, with what lets a test's server end at once."""
    lines = [line.strip() for line in (ROOT / "configs" / "serve.env").read_text(encoding="utf-8").splitlines()]
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {
        **given,
        "RAY_SERVE_HAPROXY_BINARY_PATH": haproxy_program(),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.1",
        # Away from those of a cluster that another test keeps.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": "32000",
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": "32999",
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": "42000",
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": "42999",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


def wait_until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it does not hold in time.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.1)


class ServeCluster:
    """A running Ray with Serve on a free port."""

    def __init__(self, port: int) -> None:
        import ray

        self.url = f"http://127.0.0.1:{port}"
        node = next(node for node in ray.nodes() if node["Alive"])
        self.metrics_url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        self.log_folder = Path(ray._private.worker.global_worker.node.get_logs_dir_path()) / "serve"

    def deploy(self, document: dict[str, Any], within_s: float = 120.0) -> None:
        """Do what ``serve deploy`` does with a file, and wait until all its applications run."""
        from ray import serve
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        _get_global_client().deploy_apps(ServeDeploySchema.model_validate(document))
        names = [application["name"] for application in document["applications"]]

        def running() -> bool:
            applications = serve.status().applications
            failed = [name for name in names if name in applications and "FAILED" in applications[name].status]
            assert not failed, [applications[name].message for name in failed]
            return all(name in applications and applications[name].status == "RUNNING" for name in names)

        wait_until(running, within_s, f"{', '.join(names)} running")
        prefixes = [application.get("route_prefix", "/").rstrip("/") for application in document["applications"]]
        # The proxy in front learns of new replicas a little later than the controller; until then it knows no path.
        wait_until(lambda: all(map(self._is_routed, prefixes)), within_s, "all paths known to the proxy")

    def _is_routed(self, prefix: str) -> bool:
        try:
            answers = [httpx.get(f"{self.url}{prefix}/health", timeout=10).status_code for _ in range(3)]
            return not {404, 503} & set(answers)
        except httpx.TransportError:
            return False

    def replicas(self, deployment: str, application: str = "poolhouse") -> int:
        """Replicas that run now."""
        from ray import serve
        from ray.serve.schema import ReplicaState

        states = serve.status().applications[application].deployments[deployment].replica_states
        return int(states.get(ReplicaState.RUNNING, 0))

    def replica_ids(self, application: str = "poolhouse") -> set[str]:
        """Ids of all replicas of an application; a replica that is started anew has another id."""
        from ray.serve.context import _get_global_client

        deployments = _get_global_client().get_serve_details()["applications"][application]["deployments"]
        return {replica["replica_id"] for each in deployments.values() for replica in each["replicas"]}


@contextmanager
def serve_cluster(*, cpus: int = 8, gpus: int = 0, **environment: str) -> Iterator[ServeCluster]:
    """Start Ray and Serve with so many logical CPUs and GPUs; all processes end with the block.

    Args:
        environment: further variables for every process of the cluster.
    """
    before = dict(os.environ)
    os.environ.update({**serve_environment(), **environment})
    # Serve reads its settings when it is imported.
    import ray
    from ray import serve

    port = free_port()
    ray.init("local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, log_to_driver=False, namespace="serve")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
        yield ServeCluster(port)
    finally:
        serve.shutdown()
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


def load_config(path: Path) -> dict[str, Any]:
    """Read a Serve configuration."""
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document

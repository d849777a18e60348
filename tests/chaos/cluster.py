"""A Serve cluster of its own on this machine, whose parts can be found by process id and ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from tests.support.haproxy import haproxy_program
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
_START_WITHIN_S = 120.0
_APPLICATION = "poolhouse"


class Cluster:
    """A running application."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port

    def deploy(self, args: dict[str, Any], replicas: dict[str, int], *, spread: bool = False) -> None:
        """Deploy, or replace what runs, and wait until it does.

        Args:
            replicas: deployment → number of replicas; 1 for those not named.
            spread: at most one replica of a stage on each node.
        """
        before = self._deployed_at()
        self.submit(args, replicas, spread=spread)
        # Until the controller has taken the new configuration in, the old one counts as running.
        wait_until(lambda: self._deployed_at() != before, _START_WITHIN_S, lambda: "the application is not deployed")
        wait_until(lambda: self._status() == "RUNNING", _START_WITHIN_S, lambda: f"the application is {self._status()}")
        wait_until(self.answers, _START_WITHIN_S, lambda: "the application runs and answers nothing")

    def submit(self, args: dict[str, Any], replicas: dict[str, int], *, spread: bool = False) -> None:
        """Begin to deploy; see ``deploy``."""
        names = ["Ingress"]
        if args.get("wiring") == "split":
            names += ["Tokenizer", "Pooler", *(f"Encoder-{name}" for name in args["encoders"])]
        deployments = [
            {
                "name": name,
                "num_replicas": replicas.get(name, 1),
                "max_ongoing_requests": 10_000 if name == "Ingress" else 64,
                # An ingress that is replaced finishes what it holds, as in configs/prod.yaml.
                "graceful_shutdown_timeout_s": 75 if name == "Ingress" else 5,
                "ray_actor_options": {"num_cpus": 0},
                **({"max_replicas_per_node": 1} if spread else {}),
            }
            for name in names
        ]
        application = {
            "name": _APPLICATION,
            "route_prefix": "/",
            "import_path": "deployments.app:build",
            "args": args,
            "deployments": deployments,
        }
        schema = ServeDeploySchema.model_validate({"applications": [application]})
        _get_global_client().deploy_apps(schema, _blocking=False)

    def answers(self) -> bool:
        """Whether a request of one text is answered."""
        try:
            return httpx.post(f"{self.url}/v1/embeddings", json={"input": "a text"}, timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    def processes(self, deployment: str) -> list[int]:
        """Process ids of the deployment's running replicas."""
        application = self._details()["applications"][_APPLICATION]
        replicas = application["deployments"][deployment]["replicas"]
        return [replica["pid"] for replica in replicas if replica["state"] == "RUNNING"]

    def a_process(self, deployment: str) -> int:
        """Process id of one of the deployment's replicas, as soon as one runs: a new controller finds them one by one."""
        wait_until(lambda: bool(self.processes(deployment)), 30, lambda: f"no replica of {deployment} runs")
        return self.processes(deployment)[0]

    def kill(self, deployment: str) -> int:
        """End one replica as the kernel would when memory runs out; returns its process id."""
        process = self.a_process(deployment)
        os.kill(process, signal.SIGKILL)
        return process

    def wait_for_replicas(self, deployment: str, count: int, *, without: int, within_s: float) -> None:
        """Wait until so many replicas run, the process ``without`` not among them."""

        def there() -> bool:
            running = self.processes(deployment)
            return len(running) >= count and without not in running

        wait_until(there, within_s, lambda: f"{deployment} has {self.processes(deployment)}")

    def kill_controller(self) -> None:
        """End Serve's controller; Ray starts it again."""
        ray.kill(_get_global_client()._controller, no_restart=False)

    @staticmethod
    def _details() -> Any:
        return ray.get(_get_global_client()._controller.get_serve_instance_details.remote())

    def _deployed_at(self) -> float | None:
        application = self._details()["applications"].get(_APPLICATION)
        return None if application is None else float(application["last_deployed_time_s"])

    def _status(self) -> str:
        # A string and an enum's member at once: str() of it would be the member's name.
        status: str = self._details()["applications"][_APPLICATION]["status"]
        return status


def wait_until(condition: Callable[[], bool], within_s: float, state: Callable[[], str]) -> None:
    """Poll until ``condition`` holds.

    Raises:
        TimeoutError: with what ``state`` says, when the time is over.
    """
    until_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until_s:
            raise TimeoutError(f"not within {within_s:g} s: {state()}")
        # Serve tells nobody of a change; it has to be asked.
        time.sleep(0.05)


@contextmanager
def running(args: dict[str, Any], replicas: dict[str, int]) -> Iterator[Cluster]:
    """Start Ray and Serve, deploy, and end both afterwards."""
    set_environment()
    with _ray_and_serve() as cluster:
        cluster.deploy(args, replicas)
        yield cluster


@contextmanager
def _ray_and_serve(**options: Any) -> Iterator[Cluster]:
    port = free_port()
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", **(options or _SMALL))
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield Cluster(port)
    finally:
        serve.shutdown()
        ray.shutdown()


_SMALL: dict[str, Any] = {"num_cpus": 4, "object_store_memory": 150 * 2**20}


def set_environment() -> None:
    """Give Ray the environment that ``make serve`` gives it; the modules must be found by its workers."""
    for line in (ROOT / "configs" / "serve.env").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_SERVE_HAPROXY_BINARY_PATH", haproxy_program())
    os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "0.1")
    paths = os.environ.get("PYTHONPATH", "")
    if str(ROOT) not in paths.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(part for part in (str(ROOT), paths) if part)

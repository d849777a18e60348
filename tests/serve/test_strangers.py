"""A cluster of two nodes that asks for a token, on loopback, and who gets in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.clusters import ROOT

pytestmark = [pytest.mark.serve, pytest.mark.timeout(180)]

TOKEN, OTHER = "a" * 64, "b" * 64

HOSTS = """
from ray.cluster_utils import Cluster
small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
cluster.add_node(resources={"second": 1}, **small)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
input()
cluster.shutdown()
"""

# Its work needs both: the head takes it, the second node does it.
GUEST = """
import sys
import ray
ray.init(sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=0, resources={"second": 1})
def work():
    return "done on the second node"
print(ray.get(work.remote(), timeout=60))
"""


def environment(**ours: str) -> dict[str, str]:
    """This process's variables, with those that ``ours`` adds in place of Ray's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Loopback: nothing of these clusters is for other machines.
    return {**kept, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_gcs_server_request_timeout_seconds": "5", **ours}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, "-c", HOSTS]
    given = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    with subprocess.Popen(command, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hosts:
        assert hosts.stdin is not None
        assert hosts.stdout is not None
        try:
            yield hosts.stdout.readline().strip()
        finally:
            hosts.stdin.write("\n")
            hosts.stdin.close()
            hosts.wait()


def enter(address: str, **ours: str) -> subprocess.CompletedProcess[str]:
    """Connect to the cluster and have it work."""
    command = [sys.executable, "-c", GUEST, address]
    return subprocess.run(
        command, env=environment(**ours), capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )


def test_the_token_opens_both_nodes(address: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN, encoding="ascii")
    entered = enter(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(file))
    assert "done on the second node" in entered.stdout, entered.stderr[-2_000:]


def test_strangers_are_refused(address: str) -> None:
    strangers = [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": OTHER}]
    # Side by side: Ray tries for twenty seconds before it gives up.
    with ThreadPoolExecutor() as threads:
        refusals = list(threads.map(lambda ours: enter(address, **ours), strangers))
    for refused in refusals:
        assert refused.returncode != 0
        assert "done" not in refused.stdout
        assert "uthenticat" in refused.stderr, refused.stderr[-2_000:]

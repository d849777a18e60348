"""A server as ``make serve`` starts it, with every process that it starts known by a mark and gone at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from deployments.ports import Listener, inodes_of, listeners
from tests.support.haproxy import haproxy_program
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
_MARK = "POOLHOUSE_TEST_RUN"
_POLL_S = 0.05
_END_WITHIN_S = 40.0


@dataclass(slots=True)
class ServeRun:
    """A running server.

    Attributes:
        url: where HTTP answers once the applications are there.
        output: the file that standard output and error go to.
    """

    url: str
    output: Path
    process: subprocess.Popen[bytes]
    mark: str

    def printed(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def replicas(self) -> dict[int, str]:
        """Process ids of the living replicas, with the names that Ray gives them."""
        return {pid: title for pid, title in self._processes().items() if title.startswith("ray::ServeReplica")}

    def listeners(self) -> list[Listener]:
        """The sockets at which its processes wait for connections."""
        held = {inode for pid in self._processes() for inode in inodes_of(Path(f"/proc/{pid}"))}
        return [listener for listener in listeners() if listener.inode in held]

    def answers(self, path: str = "/health") -> bool:
        """Whether a path answers 200."""
        try:
            return httpx.get(f"{self.url}{path}", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def wait_for(self, condition: Callable[[], bool], within_s: float) -> None:
        """Wait until ``condition`` holds; fail with what was printed if it does not, or if the process has ended."""
        ends_s = time.monotonic() + within_s
        while not condition():
            assert self.process.poll() is None, f"serve run ended early:\n{self.printed()[-4_000:]}"
            assert time.monotonic() < ends_s, (
                f"not within {within_s:g} s; serve run printed:\n{self.printed()[-4_000:]}"
            )
            time.sleep(_POLL_S)

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """Press Ctrl-C, or send another signal; fail if anything is left of it."""
        self.process.send_signal(number)
        ends_s = time.monotonic() + _END_WITHIN_S
        while (self.process.poll() is None or self._processes()) and time.monotonic() < ends_s:
            time.sleep(_POLL_S)
        left = self._processes()
        self.kill()
        assert not left, f"still there {_END_WITHIN_S:g} s after {number.name}: {left}"

    def kill(self) -> None:
        """End whatever is left, without manners."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _processes(self) -> dict[int, str]:
        """Process ids and command lines of all that it has started, and of all that those have."""
        mark = f"{_MARK}={self.mark}".encode()
        titles: dict[int, str] = {}
        parents: dict[int, int] = {}
        ours: set[int] = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                pid = int(entry.name)
                titles[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                parents[pid] = int((entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                # Ray writes the titles of its processes over their environment; their parents tell then.
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    ours.add(pid)
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        # A process that has ended and was not waited for yet has no command line.
        return {pid: titles[pid] for pid in ours if titles[pid]}


@contextlib.contextmanager
def serve_run(
    directory: Path, applications: list[dict[str, Any]], more: dict[str, str] | None = None
) -> Iterator[ServeRun]:
    """Serve a configuration of these applications, in the environment that ``make serve`` sets, and more."""
    http = free_port()
    document = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": http, "request_timeout_s": 330},
        "applications": applications,
    }
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= _environment_file(ROOT / "configs" / "serve.env")
    environment |= {
        _MARK: mark,
        "PYTHONPATH": str(ROOT),
        # Away from the token of whoever runs the tests.
        "RAY_AUTH_TOKEN": uuid.uuid4().hex,
        "RAY_SERVE_HAPROXY_BINARY_PATH": haproxy_program(),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.01",
        **(more or {}),
    }
    output = directory / "printed.txt"
    command = [sys.executable, "-m", "deployments.launch", str(file)]
    with (
        output.open("wb") as written,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=written, stderr=subprocess.STDOUT) as process,
    ):
        run = ServeRun(f"http://127.0.0.1:{http}", output, process, mark)
        try:
            yield run
            run.end()
        finally:
            run.kill()


def application(name: str, route_prefix: str, args: dict[str, Any], deployments: list[str]) -> dict[str, Any]:
    """One Poolhouse application whose deployments ask for next to nothing and end at once."""
    return {
        "name": name,
        "route_prefix": route_prefix,
        "import_path": "deployments.app:build",
        "args": args,
        "deployments": [
            {
                "name": deployment,
                "num_replicas": 1,
                "max_ongoing_requests": 10_000,
                "graceful_shutdown_timeout_s": 1,
                "graceful_shutdown_wait_loop_s": 0.1,
                "ray_actor_options": {"num_cpus": 0.01},
            }
            for deployment in deployments
        ],
    }


def _environment_file(path: Path) -> dict[str, str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

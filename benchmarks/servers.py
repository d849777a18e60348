"""Starts and ends the servers under test: Poolhouse in either wiring, and llama-server.

Every process that a server leaves behind is ended by its id.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.benchmark.processes import tree_of
from cluster.benchmark.runs import Server, model_of
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
START_WITHIN_S = 180.0
STOP_WITHIN_S = 40.0


def poolhouse_config(wiring: str, port: int, args: Mapping[str, Any], replicas: int = 1) -> dict[str, Any]:
    """Return the Serve configuration that ``make serve`` uses for a wiring, on another port.

    Args:
        args: take the place of the file's own where given (models, encoders).
        replicas: of each encoder (split wiring).
    """
    path = ROOT / "configs" / ("local.yaml" if wiring == "fused" else "split.yaml")
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["http_options"]["port"] = port
    application = config["applications"][0]
    application["args"].update(args)
    if args.get("encoders"):
        kept = [entry for entry in application["deployments"] if not entry["name"].startswith("Encoder-")]
        cpus = 1 if replicas == 1 else 0.01
        added = {"num_replicas": replicas, "max_ongoing_requests": 64, "ray_actor_options": {"num_cpus": cpus}}
        encoders = [{"name": f"Encoder-{name}", **added} for name in args["encoders"]]
        application["deployments"] = kept + (encoders if wiring == "split" else [])
    return config


@contextlib.contextmanager
def poolhouse(wiring: str, log: Path, args: Mapping[str, Any] | None = None, replicas: int = 1) -> Iterator[Server]:
    """Run Poolhouse as ``make serve`` does; ends it and all its processes afterwards."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="poolhouse-"))
    config = folder / "serve.yaml"
    config.write_text(yaml.safe_dump(poolhouse_config(wiring, port, args or {}, replicas)), encoding="utf-8")
    environment = {**os.environ, **_serve_environment(), "RAY_ADDRESS": "local", "RAY_TMPDIR": str(folder)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        with _running(
            [sys.executable, "-m", "deployments.launch", str(config)], environment, log, signal.SIGINT
        ) as process:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(f"{url}/health", process, log)
            yield Server(wiring, url, model_of(url, None), process=process.pid)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def llama_server(program: str, gguf: Path, arguments: list[str], log: Path) -> Iterator[Server]:
    """Run llama-server; ends it afterwards."""
    port = free_port()
    command = [program, "-m", str(gguf), "--embedding", "--port", str(port), *arguments]
    with _running(command, dict(os.environ), log, signal.SIGTERM) as process:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(f"{url}/health", process, log)
        yield Server("llama-server", url, "any", process=process.pid)


def _serve_environment() -> dict[str, str]:
    lines = (ROOT / "configs" / "serve.env").read_text(encoding="utf-8").splitlines()
    found = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {
        **found,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(sys.executable).with_name("poolhouse-haproxy")),
    }


@contextlib.contextmanager
def _running(
    command: list[str], environment: dict[str, str], log: Path, end_signal: signal.Signals
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        left = [(pid, _start_time(pid)) for pid in tree_of(process.pid)]
        process.send_signal(end_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN_S)
        for pid, started in left:
            # The id may belong to another process by now; the time that it was started at tells.
            if started is not None and _start_time(pid) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait()


def _start_time(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else fields[19]


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with status {process.returncode}; see {log}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            # Nothing tells when a server listens; it has to be asked.
            time.sleep(0.2)
    raise SystemExit(f"the server was not ready within {START_WITHIN_S:g} s; see {log}")

"""The program between Serve and HAProxy, with a real HAProxy and a stand-in for Serve's actor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from deployments.haproxy import has_routes, prepared, running
from tests.support.haproxy import haproxy_program
from tests.support.ports import free_port

WITHOUT_ROUTES = """global
    stats socket {folder}/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
frontend http_frontend
    bind 127.0.0.1:{port}
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path '%[path]' not found."
"""
WITH_ROUTES = WITHOUT_ROUTES.replace(
    "    default_backend default_backend\n",
    "    acl is_app path_beg /\n    use_backend app if is_app\n    default_backend default_backend\n",
) + (
    "backend app\n    http-request return status 200 content-type text/plain string answered if {{ path /works }}\n"
    "    server gone 127.0.0.1:1\n"
)

# Plays Ray: a raylet whose child, the actor, starts the program and prints both process ids.
RAY = """
import subprocess, sys, time
if sys.argv[1] == "raylet":
    actor = subprocess.Popen([sys.executable, "-c", sys.argv[2], "actor", "", *sys.argv[3:]])
    print(actor.pid, flush=True)
    time.sleep(60)
process = subprocess.Popen(sys.argv[3:], stderr=subprocess.DEVNULL)
process.wait()
time.sleep(60)
"""


class Front:
    """A HAProxy that was started as Serve starts it."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "haproxy.cfg"
        self.port = free_port()
        (folder / "500.http").write_text("HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n", encoding="ascii")
        self._rays: list[subprocess.Popen[str]] = []

    def start(self, config: str = WITH_ROUTES) -> tuple[subprocess.Popen[str], int]:
        """Start with this configuration; returns the raylet, and the actor's process id."""
        self.config.write_text(config.format(folder=self.config.parent, port=self.port), encoding="utf-8")
        command = [haproxy_program(), "-db", "-f", str(self.config), "-dR"]
        raylet = subprocess.Popen(
            [sys.executable, "-c", RAY, "raylet", RAY, *command], stdout=subprocess.PIPE, text=True
        )
        self._rays.append(raylet)
        assert raylet.stdout is not None
        return raylet, int(raylet.stdout.readline())

    def get(self, path: str = "/works") -> httpx.Response:
        """Ask on a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)

    def answers(self) -> bool:
        """Whether anybody listens."""
        try:
            return self.get().status_code < 600
        except httpx.TransportError:
            return False

    def haproxies(self) -> list[int]:
        """Process ids."""
        return running(self.config, started=True)

    def end(self) -> None:
        """End Ray; HAProxy has to follow."""
        for raylet in self._rays:
            raylet.kill()
            raylet.wait()
            assert raylet.stdout is not None
            raylet.stdout.close()
        wait_for(lambda: not self.haproxies())


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    started = Front(tmp_path)
    yield started
    started.end()


def wait_for(condition: Callable[[], bool], within_s: float = 10.0) -> float:
    """Wait for a condition; returns the seconds it took."""
    begun_s = time.monotonic()
    while not condition():
        assert time.monotonic() - begun_s < within_s
        time.sleep(0.02)
    return time.monotonic() - begun_s


def gone(pid: int) -> bool:
    """Whether the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_killed_haproxy_is_back_within_two_seconds_and_its_actor_is_ended(front: Front) -> None:
    _, actor = front.start()
    wait_for(front.answers)
    for _ in range(2):
        (killed,) = front.haproxies()
        os.kill(killed, signal.SIGKILL)
        wait_for(partial(gone, killed))
        assert wait_for(front.answers, 4.0) < 2.0
        assert front.get().text == "answered"
    assert gone(actor)


def test_the_next_actor_takes_over_without_a_gap_and_keeps_the_routes(front: Front) -> None:
    _, actor = front.start()
    wait_for(front.answers)
    (orphan,) = front.haproxies()
    os.kill(actor, signal.SIGKILL)
    front.start(WITHOUT_ROUTES)
    statuses = set()

    def replaced() -> bool:
        statuses.add(front.get().status_code)
        found = front.haproxies()
        return len(found) == 1 and orphan not in found

    wait_for(replaced)
    assert statuses == {200}


def test_an_actor_that_ends_haproxy_and_itself_is_left_alone(front: Front) -> None:
    _, actor = front.start()
    wait_for(front.answers)
    (haproxy,) = front.haproxies()
    os.kill(haproxy, signal.SIGKILL)
    os.kill(actor, signal.SIGKILL)
    wait_for(lambda: not watchers(haproxy))
    assert not front.answers()


def test_haproxy_ends_with_ray(front: Front) -> None:
    raylet, _ = front.start()
    wait_for(front.answers)
    (haproxy,) = front.haproxies()
    raylet.kill()
    wait_for(lambda: gone(haproxy))
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", front.port))


def test_without_a_route_it_asks_clients_to_come_again(front: Front) -> None:
    front.start(WITHOUT_ROUTES)
    wait_for(front.answers)
    answer = front.get()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "not_ready"


def test_without_a_replica_it_asks_clients_to_come_again(front: Front) -> None:
    front.start()
    wait_for(front.answers)
    answer = front.get("/to-the-server")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "not_ready"


class StandIn(BaseHTTPRequestHandler):
    """Plays Serve's proxy: it knows /knows, where a replica does not know the model, and no other path."""

    def do_GET(self) -> None:
        """Answer 404."""
        knows = self.path == "/knows"
        body = b'{"error": {"code": "model_not_found"}}' if knows else b"Path not found."
        self.send_response(404)
        self.send_header("content-type", "application/json" if knows else "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def test_a_proxy_that_stands_in_without_the_route_asks_clients_to_come_again(front: Front) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            gone, backup = "server gone 127.0.0.1:1", f"server fallback 127.0.0.1:{server.server_port} check backup"
            front.start(WITH_ROUTES.replace(gone, f"{gone} disabled\n    {backup}"))
            wait_for(front.answers)
            unknown, known = front.get("/unknown"), front.get("/knows")
        finally:
            server.shutdown()
            thread.join()
    assert (unknown.status_code, unknown.headers["retry-after"]) == (503, "1")
    assert unknown.json()["error"]["code"] == "not_ready"
    assert (known.status_code, known.json()["error"]["code"]) == (404, "model_not_found")


def test_a_path_that_no_route_takes_stays_unknown(tmp_path: Path) -> None:
    text = WITH_ROUTES.format(folder=tmp_path, port=1)
    assert has_routes(text)
    assert "return status 404" in prepared(text, tmp_path)


def test_a_configuration_of_another_form_is_left_as_it_is(tmp_path: Path) -> None:
    assert prepared("global\n    maxconn 5\n", tmp_path) == "global\n    maxconn 5\n"
    assert list(tmp_path.iterdir()) == []


def watchers(haproxy: int) -> list[int]:
    """Process ids of the watchers of this HAProxy."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.endswith(b"deployments/haproxy.py") for word in words) and str(haproxy).encode() in words:
                found.append(int(entry.name))
    return found

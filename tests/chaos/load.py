"""Load by hand-written HTTP/1.1 over asyncio streams: cheap enough to share two cores with the cluster under test."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Body = Callable[[int], dict[str, Any]]
"""Number of a request → its body."""

Check = Callable[[dict[str, Any], dict[str, Any]], bool]
"""(request body, answer) → whether the answer is right."""


# What Retry-After says.
_RETRY_AFTER_S = 1.0

# Above every limit that the experiments set.
_ANSWER_WITHIN_S = 70.0


@dataclass(slots=True)
class Outcome:
    """What clients saw.

    Attributes:
        statuses: answers by status; 0 is a broken connection, or no answer at all.
        seconds: status → how long each answer took.
        finished_s: status → when each answer came, seconds after the load began.
        wrong: answers of status 200 that were not right.
        retried: requests that failed and were sent once more; what came of that is in the other figures.
        bodies: a few bodies of answers that were neither 200 nor 429.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    finished_s: dict[int, list[float]] = field(default_factory=dict)
    wrong: int = 0
    retried: int = 0
    bodies: list[str] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Answers that were not 200."""
        return sum(count for status, count in self.statuses.items() if status != 200)

    def percentile_s(self, status: int, percent: float) -> float:
        """The time within which this share of the answers of this status came; 0 where there was none."""
        ordered = sorted(self.seconds.get(status, []))
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


class Client:
    """One connection, opened anew after an error."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: dict[str, Any], headers: str = "") -> tuple[int, bytes]:
        """Send to ``/v1/embeddings``; status 0 where the connection broke."""
        content = json.dumps(body).encode()
        head = (
            f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        try:
            if self._streams is not None and self._streams[0].at_eof():
                # The server has closed an idle connection, as it may.
                self.close()
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(head.encode() + content)
            answer = await read_head(reader)
            content = await answer.read_content(reader)
            if answer.is_last:
                self.close()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            self.close()
            return 0, b""
        except asyncio.CancelledError:
            self.close()
            raise
        return answer.status, content

    def close(self) -> None:
        """Drop the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer.

    Attributes:
        length: of the body in bytes; None where it comes in chunks.
        is_last: whether the server closes the connection after it, as one that is replaced does.
    """

    status: int
    length: int | None
    is_last: bool

    async def read_content(self, reader: asyncio.StreamReader, piece_bytes: int = 2**30, pause_s: float = 0.0) -> bytes:
        """Return the body, read in pieces of so many bytes with a pause after each."""
        if self.length is not None:
            return await _read_slowly(reader, self.length, piece_bytes, pause_s)
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await _read_slowly(reader, size, piece_bytes, pause_s))
            await reader.readexactly(2)
        await reader.readexactly(2)
        return b"".join(parts)


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Read the head of an answer.

    Raises:
        ValueError: what came is no HTTP.
        IncompleteReadError: the connection ended before.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = head.partition("content-length:")[2].partition("\r\n")[0]
    chunked = "transfer-encoding: chunked" in head
    return Head(int(head.split(" ", 2)[1]), None if chunked else int(length), "connection: close" in head)


async def _read_slowly(reader: asyncio.StreamReader, size: int, piece_bytes: int, pause_s: float) -> bytes:
    parts = []
    for at in range(0, size, piece_bytes):
        parts.append(await reader.readexactly(min(piece_bytes, size - at)))
        if pause_s:
            await asyncio.sleep(pause_s)
    return b"".join(parts)


class Load:
    """Sends bodies at a fixed rate, whatever becomes of the earlier ones.

    Args:
        check: says whether an answer is right; None takes every 200.
        retry: send a request once more whose connection broke or whose answer is 503, as clients should.
    """

    def __init__(
        self, port: int, rate_per_s: float, body: Body, check: Check | None = None, *, retry: bool = False
    ) -> None:
        self.outcome = Outcome()
        self._port = port
        self._rate_per_s = rate_per_s
        self._body = body
        self._check = check
        self._retry = retry
        self._idle: list[Client] = []
        self._begun_s = 0.0

    async def run(self, seconds: float, until: asyncio.Event | None = None) -> Outcome:
        """Send for so long, or until the event is set; then wait for what is in flight."""
        self._begun_s = time.monotonic()
        sent: set[asyncio.Task[None]] = set()
        number = 0
        while (now_s := time.monotonic() - self._begun_s) < seconds and not (until and until.is_set()):
            if number / self._rate_per_s > now_s:
                await asyncio.sleep(number / self._rate_per_s - now_s)
            task = asyncio.create_task(self._one(number))
            sent.add(task)
            task.add_done_callback(sent.discard)
            number += 1
        await asyncio.gather(*sent)
        for client in self._idle:
            client.close()
        return self.outcome

    async def _one(self, number: int) -> None:
        client = self._idle.pop() if self._idle else Client(self._port)
        body = self._body(number)
        begun_s = time.monotonic()
        status, content = await self._ask(client, body)
        if self._retry and status in (0, 503):
            self.outcome.retried += 1
            await asyncio.sleep(_RETRY_AFTER_S)
            status, content = await self._ask(client, body)
        ended_s = time.monotonic()
        self._idle.append(client)
        outcome = self.outcome
        outcome.statuses[status] += 1
        outcome.seconds.setdefault(status, []).append(ended_s - begun_s)
        outcome.finished_s.setdefault(status, []).append(ended_s - self._begun_s)
        if status == 200 and self._check is not None and not self._check(body, json.loads(content)):
            outcome.wrong += 1
        if status not in (200, 429) and len(outcome.bodies) < 5:
            outcome.bodies.append(content[:300].decode("utf-8", "replace"))

    @staticmethod
    async def _ask(client: Client, body: dict[str, Any]) -> tuple[int, bytes]:
        try:
            return await asyncio.wait_for(client.post(body), _ANSWER_WITHIN_S)
        except TimeoutError:
            return 0, b"no answer within %d s" % _ANSWER_WITHIN_S

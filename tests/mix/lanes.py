"""Clients that send the mix: so many connections at once, each request as soon as the last one of its lane is over."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.load import read_head
from tests.mix.requests import Kind, Manner, Request

LANES = 64

_PIECES = 6
_PAUSE_S = 0.05
_READ_BYTES = 4_096
_READ_PAUSE_S = 0.005
_STAYS_S = 0.02
_ANSWER_WITHIN_S = 20.0
_KEPT_FAULTS = 20


@dataclass(slots=True)
class Tally:
    """What came of the requests of one kind.

    Attributes:
        statuses: answers by status; 0 is a connection that the server closed. A client that left has none.
        seconds: how long each answer took.
    """

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    unexpected: int = 0

    def percentile_ms(self, percent: float) -> float:
        """The time within which this share of the answers came."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1e3 if ordered else 0.0


class Lanes:
    """Sends requests of random kinds.

    Attributes:
        resent: requests whose kept connection the server had closed before it read them.
        faults: descriptions of the first answers that were wrong, or of a status that nobody promised.
    """

    def __init__(self, port: int, kinds: Sequence[Kind], seed: int = 3) -> None:
        self.tallies = {kind.name: Tally() for kind in kinds}
        self.resent = 0
        self.faults: list[str] = []
        self._port = port
        self._kinds = kinds
        self._weights = [kind.weight for kind in kinds]
        self._chance = random.Random(seed)

    async def send(self, count: int, ends_s: float) -> int:
        """Send so many requests and wait for their answers, or stop at ``ends_s`` (monotonic); returns how many were sent."""
        drawn = iter(self._chance.choices(self._kinds, self._weights, k=count))
        sent = await asyncio.gather(*(self._lane(drawn, ends_s) for _ in range(LANES)))
        return sum(sent)

    async def _lane(self, drawn: Iterator[Kind], ends_s: float) -> int:
        line = _Line(self._port)
        sent = 0
        # All lanes take from the one iterator, each when it is free.
        for kind in drawn:
            if time.monotonic() > ends_s:
                break
            sent += 1
            await self._one(line, kind)
        line.close()
        return sent

    async def _one(self, line: _Line, kind: Kind) -> None:
        request = kind.make(self._chance)
        tally = self.tallies[kind.name]
        tally.sent += 1
        started_s = time.monotonic()
        if request.manner is Manner.LEAVES:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(line.exchange(request), self._chance.uniform(0.0, _STAYS_S))
            line.close()
            return
        used = line.is_open
        try:
            status, content = await asyncio.wait_for(line.exchange(request), _ANSWER_WITHIN_S)
            if status == 0 and used and 0 not in request.statuses:
                # HTTP lets a server close a connection that idles; its clients send again.
                self.resent += 1
                status, content = await asyncio.wait_for(line.exchange(request), _ANSWER_WITHIN_S)
        except TimeoutError:
            line.close()
            status, content = 0, b"no answer within %d s" % _ANSWER_WITHIN_S
        tally.seconds.append(time.monotonic() - started_s)
        tally.statuses[status] += 1
        if status not in request.statuses:
            tally.unexpected += 1
            self._keep(kind, request, status, content)
        elif status == 200 and request.check is not None and not request.check(content):
            tally.wrong += 1
            self._keep(kind, request, status, content)

    def _keep(self, kind: Kind, request: Request, status: int, content: bytes) -> None:
        if len(self.faults) < _KEPT_FAULTS:
            sent = request.raw.partition(b"\r\n\r\n")[2] or request.raw
            self.faults.append(f"{kind.name}: {status} {content[:200]!r} for {sent[:150]!r}")
            print(self.faults[-1], flush=True)


class _Line:
    """One connection, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the next request goes over a connection that others have used."""
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        return self._streams is not None

    async def exchange(self, request: Request) -> tuple[int, bytes]:
        """Return status and body; status 0 where the connection ends before the answer does."""
        try:
            if not self.is_open:
                limit = _READ_BYTES if request.manner is Manner.READS_SLOWLY else 2**16
                self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=limit)
            assert self._streams is not None
            reader, writer = self._streams
            await _write(writer, request)
            head = await read_head(reader)
            pause_s = _READ_PAUSE_S if request.manner is Manner.READS_SLOWLY else 0.0
            content = (
                await head.read_content(reader, _READ_BYTES, pause_s) if pause_s else await head.read_content(reader)
            )
            if head.is_last or request.manner is Manner.STOPS_HALFWAY:
                self.close()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            self.close()
            return 0, b""
        except BaseException:
            self.close()
            raise
        return head.status, content

    def close(self) -> None:
        """Drop the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _write(writer: asyncio.StreamWriter, request: Request) -> None:
    raw = request.raw
    if request.manner is not Manner.SENDS_SLOWLY:
        writer.write(raw)
        return
    size = -(-len(raw) // _PIECES)
    for at in range(0, len(raw), size):
        writer.write(raw[at : at + size])
        await writer.drain()
        await asyncio.sleep(_PAUSE_S)

"""Clients that take their time: uploads that stop half-way, and answers that are read slowly or not at all."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from cluster.types import PoolingType
from tests.chaos.cluster import Cluster
from tests.chaos.experiments import WORDS, body_of, is_right
from tests.chaos.load import Load, Outcome, read_head
from tests.mix.memory import pss_mb
from tests.support.pipelines import expected_rows

MAX_BODY_BYTES = 2**20

_HEAD = (
    "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
)
_RECEIVE_BYTES = 4_096
_PIECE_BYTES = 16_384
_PAUSE_S = 0.3
_MATRIX_WORDS = 480
_TEXTS = 8
# Token matrices of about 13 MB of JSON.
_LARGE_TEXTS = 160
_LOOK_S = 1.0
_APART_S = 0.1


@dataclass(slots=True)
class Stalled:
    """What became of uploads that stopped.

    Attributes:
        quiet, beside: other clients before, and while the uploads stood still.
        cut_off_s: how long each lasted that the server ended.
        left: those that it did not end.
    """

    quiet: Outcome
    beside: Outcome
    cut_off_s: list[float]
    left: int


async def stall_uploads(cluster: Cluster, uploads: int, rate_per_s: float, quiet_s: float, most_s: float) -> Stalled:
    """Begin so many uploads and send no more of them, while others ask, until all were cut off or the time is over.

    Half of them stop a byte before the end, so that they hold as much as an upload can.
    """
    quiet = await Load(cluster.port, rate_per_s, body_of, is_right).run(quiet_s)
    over = asyncio.Event()
    load = Load(cluster.port, rate_per_s, body_of, is_right)
    begun_s = time.monotonic()
    standing = []
    for number in range(uploads):
        standing.append(asyncio.create_task(_stall(cluster.port, whole=number < uploads // 2)))
        # One after the other at first: together, they would fill what there is for all bodies, and break off by chance.
        await asyncio.sleep(_APART_S if number < uploads // 4 else 0.0)
    beside = asyncio.create_task(load.run(most_s, over))
    ended, left = await asyncio.wait(standing, timeout=most_s)
    # Long enough for figures of the others, however soon the uploads were cut off.
    await asyncio.sleep(max(0.0, quiet_s - (time.monotonic() - begun_s)))
    over.set()
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return Stalled(quiet, await beside, [task.result() for task in ended], len(left))


async def _stall(port: int, *, whole: bool) -> float:
    """Return how long the server left the upload open."""
    begun_s = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            sent = b'{"input":"' + b"a" * ((MAX_BODY_BYTES - 11) if whole else MAX_BODY_BYTES // 2)
            writer.write(_HEAD.format(MAX_BODY_BYTES).encode() + sent)
            while await reader.read(65_536):
                # An answer that refuses the upload comes before the end of the connection.
                pass
        finally:
            writer.close()
    except OSError:
        # Cut off while it was still sending.
        pass
    return time.monotonic() - begun_s


@dataclass(slots=True)
class SlowReads:
    """What became of answers that were read slowly.

    Attributes:
        statuses: of those read slowly; 0 was cut off.
        unread: the same of the large ones that nobody read before the end.
        growth_mb: by deployment, the most that one of its replicas grew by.
    """

    beside: Outcome
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    unread: Counter[int] = field(default_factory=Counter)
    growth_mb: dict[str, float] = field(default_factory=dict)


async def read_slowly(
    cluster: Cluster,
    deployments: list[str],
    requests: int,
    connections: int,
    unread: int,
    rate_per_s: float,
    most_s: float,
) -> SlowReads:
    """Read token matrices slowly over many connections, and leave some larger ones unread, while others ask."""
    bodies = [_matrices(number, 1) for number in range(_TEXTS)]
    over = asyncio.Event()
    load = Load(cluster.port, rate_per_s, body_of, is_right)
    seen = SlowReads(load.outcome)
    rights: dict[int, bytes] = {}

    async def reads(lane: int) -> None:
        for number in range(lane, requests, connections):
            which = number % _TEXTS
            status, content = await _read_slowly(cluster.port, bodies[which])
            seen.statuses[status] += 1
            if status == 200 and rights.setdefault(which, content) != content:
                seen.wrong += 1

    async with _watched(cluster, deployments) as growth_mb:
        beside = asyncio.create_task(load.run(most_s, over))
        idle = [await _ask(cluster.port, _matrices(lane, _LARGE_TEXTS)) for lane in range(unread)]
        lanes = [asyncio.create_task(reads(lane)) for lane in range(connections)]
        _, late = await asyncio.wait(lanes, timeout=most_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        over.set()
        await beside
        seen.growth_mb = growth_mb
    for which, content in rights.items():
        seen.wrong += not _is_right(bodies[which], content)
    seen.unread = Counter(await asyncio.gather(*(_late_status(reader) for reader, _ in idle)))
    for _, writer in idle:
        writer.close()
    return seen


async def _read_slowly(port: int, body: dict[str, Any]) -> tuple[int, bytes]:
    try:
        reader, writer = await _ask(port, body)
        try:
            head = await read_head(reader)
            return head.status, await head.read_content(reader, _PIECE_BYTES, _PAUSE_S)
        finally:
            writer.close()
    except (OSError, asyncio.IncompleteReadError, ValueError):
        return 0, b""


async def _ask(port: int, body: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request over a connection that takes in next to nothing that nobody reads."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    peer.setblocking(False)
    await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=peer, limit=_RECEIVE_BYTES)
    content = orjson.dumps(body)
    writer.write(_HEAD.format(len(content)).encode() + content)
    return reader, writer


async def _late_status(reader: asyncio.StreamReader) -> int:
    """Status of an answer that nobody has read so far, 0 where the server has cut it off."""
    try:
        head = await read_head(reader)
        await head.read_content(reader)
    except (OSError, asyncio.IncompleteReadError, ValueError):
        return 0
    return head.status


def _matrices(seed: int, texts: int) -> dict[str, Any]:
    chance = random.Random(seed)
    return {"input": [" ".join(chance.choices(WORDS, k=_MATRIX_WORDS)) for _ in range(texts)], "pooling": "none"}


def _is_right(body: dict[str, Any], content: bytes) -> bool:
    rows = orjson.loads(content)["data"][0]["embedding"]
    return bool(np.allclose(rows, expected_rows(body["input"][0], PoolingType.NONE), atol=1e-5))


@asynccontextmanager
async def _watched(cluster: Cluster, deployments: list[str]) -> AsyncIterator[dict[str, float]]:
    """Look at the memory of all replicas now and then; the yielded growth is complete after the context."""
    first: dict[int, float] = {}
    growth_mb: dict[str, float] = dict.fromkeys(deployments, 0.0)

    def look() -> None:
        for name in deployments:
            for pid in cluster.processes(name):
                mb = pss_mb(pid)
                growth_mb[name] = max(growth_mb[name], mb - first.setdefault(pid, mb))

    await asyncio.to_thread(look)
    watcher = asyncio.create_task(_again_and_again(look))
    try:
        yield growth_mb
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        await asyncio.to_thread(look)


async def _again_and_again(look: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        await asyncio.to_thread(look)

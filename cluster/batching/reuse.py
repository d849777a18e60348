"""Equal sequences are encoded once: inside a call, among calls in flight and, where a cache is configured, over time.

Shared is the encoder's own result, before normalisation, dimensions and output type, so that calls which differ only in
these share it too.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cluster.telemetry.metrics import REUSED_ITEMS
from cluster.types import Float32, Lane, Provenance, TokenBatch, VectorBatch, offsets_of

Key = tuple[str, int, int, bytes]
"""Fingerprint, pooling type, where the second segment begins, token ids."""

Send = Callable[[TokenBatch], Awaitable[VectorBatch]]

# What Python keeps of an entry besides its numbers and ids.
_ENTRY_BYTES = 480

_NOT_NOW = (math.nan, math.nan)


class _Found(NamedTuple):
    """One item's result: float32 ``[rows, width]``, when an engine computed it, and which build."""

    rows: Float32
    span: Sequence[float]
    build: str


@dataclass(slots=True, eq=False)
class _Flight:
    """One call's own sequences on their way; cancelled when nobody waits for them any more."""

    task: asyncio.Task[VectorBatch]
    lane: Lane
    waiters: int = 0
    items: dict[Key, int] = field(default_factory=dict)


class ResultCache:
    """The latest results, bounded by bytes; the one used longest ago goes first.

    Attributes:
        size_bytes: numbers, ids and bookkeeping of all entries.
    """

    def __init__(self, most_bytes: int) -> None:
        self.size_bytes = 0
        self._most_bytes = most_bytes
        self._rows: OrderedDict[Key, tuple[Float32, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: Key) -> tuple[Float32, str] | None:
        """Return the rows kept for ``key``, float32 ``[rows, width]``, and the build that computed them."""
        kept = self._rows.get(key)
        if kept is not None:
            self._rows.move_to_end(key)
        return kept

    def put(self, key: Key, rows: Float32, build: str = "") -> None:
        """Keep a copy of ``rows``, unless it alone is over the bound."""
        size_bytes = _size_bytes(key, rows)
        if size_bytes > self._most_bytes or key in self._rows:
            return
        # A view would keep the whole message's numbers alive.
        self._rows[key] = rows.copy(), build
        self.size_bytes += size_bytes
        while self.size_bytes > self._most_bytes:
            oldest, gone = self._rows.popitem(last=False)
            self.size_bytes -= _size_bytes(oldest, gone[0])


def _size_bytes(key: Key, rows: Float32) -> int:
    return rows.nbytes + len(key[3]) + _ENTRY_BYTES


class Reuse:
    """Encodes calls and shares what is equal in them.

    Args:
        cache_bytes: bound of the cache; 0 keeps nothing.
    """

    def __init__(self, cache_bytes: int = 0) -> None:
        self.cache = ResultCache(cache_bytes) if cache_bytes else None
        self._flying: dict[Key, _Flight] = {}

    async def encode(self, tokens: TokenBatch, lane: Lane, send: Send) -> VectorBatch:
        """Return the results of all items, in order.

        Args:
            send: encodes items that nobody else has; a cancelled caller cancels it only if no other call waits for it.

        Raises:
            Whatever ``send`` raises for this call's own items.
        """
        keys = _keys_of(tokens)
        rows: dict[int, _Found] = {}
        borrowed: dict[int, _Flight] = {}
        own: dict[Key, list[int]] = {}
        for item, key in enumerate(keys):
            found = self.cache.get(key) if self.cache is not None else None
            flight = self._flying.get(key)
            if found is not None:
                rows[item] = _Found(found[0], _NOT_NOW, found[1])
            elif key in own:
                own[key].append(item)
            # Nobody interactive waits behind bulk work for being equal to it.
            elif flight is not None and (flight.lane is lane or lane is Lane.BULK):
                borrowed[item] = flight
            else:
                own[key] = [item]
        REUSED_ITEMS.labels("cache").inc(len(rows))
        REUSED_ITEMS.labels("equal").inc(len(keys) - len(rows) - len(own))
        firsts = [items[0] for items in own.values()]
        mine = self._launch(tokens, firsts, list(own), lane, send) if own else None
        result = await _wait(mine, set(borrowed.values()))
        if result is not None and len(firsts) == len(keys):
            return result
        again = self._collect_borrowed(borrowed, keys, rows)
        return await self._merge(tokens, own, result, rows, again, send)

    def _launch(self, tokens: TokenBatch, items: list[int], keys: list[Key], lane: Lane, send: Send) -> _Flight:
        part = tokens if len(items) == len(tokens) else tokens.select(items)
        flight = _Flight(asyncio.ensure_future(send(part)), lane, items={key: i for i, key in enumerate(keys)})
        self._flying.update(dict.fromkeys(keys, flight))
        flight.task.add_done_callback(lambda task: self._land(flight))
        return flight

    def _land(self, flight: _Flight) -> None:
        for key in flight.items:
            if self._flying.get(key) is flight:
                del self._flying[key]
        if self.cache is None or flight.task.cancelled() or flight.task.exception() is not None:
            return
        result = flight.task.result()
        for key, item in flight.items.items():
            if item not in result.errors:
                self.cache.put(key, result.rows(item), result.provenance.build_of(item))

    @staticmethod
    def _collect_borrowed(borrowed: dict[int, _Flight], keys: list[Key], rows: dict[int, _Found]) -> list[int]:
        """Take the rows that others' flights brought; return the items that must be encoded after all."""
        again: list[int] = []
        for item, flight in borrowed.items():
            task = flight.task
            if task.cancelled() or task.exception() is not None:
                again.append(item)
                continue
            index = flight.items[keys[item]]
            # The other call's deadline, for one, is no error of this call.
            if index in task.result().errors:
                again.append(item)
            else:
                rows[item] = _found(task.result(), index)
        return again

    @staticmethod
    async def _merge(
        tokens: TokenBatch,
        own: dict[Key, list[int]],
        result: VectorBatch | None,
        rows: dict[int, _Found],
        again: list[int],
        send: Send,
    ) -> VectorBatch:
        retried = await send(tokens.select(again)) if again else None
        errors = {}
        for source, places in ((result, list(own.values())), (retried, [[item] for item in again])):
            if source is None:
                continue
            origins = zip(source.provenance.spans.tolist(), source.provenance.build_names(), strict=True)
            for index, (items, (span, build)) in enumerate(zip(places, origins, strict=True)):
                if index in source.errors:
                    errors.update(dict.fromkeys(items, source.errors[index]))
                else:
                    rows.update(dict.fromkeys(items, _Found(source.rows(index), span, build)))
        found = [rows.get(item, _NOTHING) for item in range(len(tokens))]
        parts = [each.rows for each in found]
        sources = [source for source in (result, retried) if source is not None]
        return VectorBatch(
            fingerprint=tokens.fingerprint,
            values=np.concatenate([part.reshape(-1) for part in parts]),
            offsets=offsets_of([part.size for part in parts]),
            widths=np.asarray([part.shape[1] for part in parts], dtype=np.int32),
            errors=errors,
            encoded_tokens=sum(source.encoded_tokens for source in sources),
            provenance=Provenance.of_items([each.span for each in found], [each.build for each in found]),
        )


_NOTHING = _Found(np.zeros((0, 1), dtype=np.float32), _NOT_NOW, "")


def _found(result: VectorBatch, item: int) -> _Found:
    return _Found(result.rows(item), result.provenance.spans[item].tolist(), result.provenance.build_of(item))


def _keys_of(tokens: TokenBatch) -> list[Key]:
    offsets = tokens.offsets.tolist()
    raw = memoryview(tokens.token_ids.tobytes())
    mark = tokens.fingerprint
    return [
        (mark, pooling, second, bytes(raw[4 * begin : 4 * end]))
        for pooling, second, begin, end in zip(
            tokens.pooling.tolist(), tokens.second_segment.tolist(), offsets, offsets[1:], strict=False
        )
    ]


async def _wait(mine: _Flight | None, others: set[_Flight]) -> VectorBatch | None:
    """Wait for all flights; return the result of ``mine``, or raise its error."""
    flights = others | {mine} if mine is not None else others
    for flight in flights:
        flight.waiters += 1
    try:
        if flights:
            await asyncio.wait([flight.task for flight in flights])
    finally:
        for flight in flights:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                flight.task.cancel()
    return mine.task.result() if mine is not None else None

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

from cluster.offload import its_turn
from cluster.telemetry.metrics import REUSED_ITEMS
from cluster.types import Float32, Lane, Provenance, TokenBatch, VectorBatch, offsets_of

Key = tuple[str, int, int, bytes]
"""Fingerprint, pooling type, where the second segment begins, token ids."""

Send = Callable[[TokenBatch], Awaitable[VectorBatch]]

# What Python keeps of an entry besides its numbers and ids.
_ENTRY_BYTES = 480

_NOT_NOW = (math.nan, math.nan)


class _Picked(NamedTuple):
    """Items of a call, and where in a message their results are."""

    result: VectorBatch
    places: list[int]
    items: list[int]


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
        kept: dict[int, tuple[Float32, str]] = {}
        borrowed: dict[_Flight, list[int]] = {}
        # One dictionary and flat lists: the garbage collector goes through thousands of small ones while requests wait.
        own: dict[Key, int] = {}
        firsts: list[int] = []
        own_items: list[int] = []
        places: list[int] = []
        for item, key in enumerate(keys):
            found = self.cache.get(key) if self.cache is not None else None
            flight = self._flying.get(key)
            if found is not None:
                kept[item] = found
            # Nobody interactive waits behind bulk work for being equal to it.
            elif key not in own and flight is not None and (flight.lane is lane or lane is Lane.BULK):
                borrowed.setdefault(flight, []).append(item)
            else:
                if key not in own:
                    own[key] = len(own)
                    firsts.append(item)
                own_items.append(item)
                places.append(own[key])
        REUSED_ITEMS.labels("cache").inc(len(kept))
        REUSED_ITEMS.labels("equal").inc(len(keys) - len(kept) - len(own))
        mine = self._launch(tokens, firsts, own, lane, send) if own else None
        result = await _wait(mine, set(borrowed))
        # One flight may have set many calls free.
        await its_turn()
        if result is not None and len(firsts) == len(keys):
            return result
        picked, again = self._collect_borrowed(borrowed, keys)
        if result is not None:
            picked.append(_Picked(result, places, own_items))
        if kept:
            picked.append(_Picked(_kept(tokens.fingerprint, list(kept.values())), list(range(len(kept))), list(kept)))
        retried = await send(tokens.select(again)) if again else None
        if retried is not None:
            picked.append(_Picked(retried, list(range(len(again))), again))
        encoded_tokens = sum(source.encoded_tokens for source in (result, retried) if source is not None)
        return self._merge(tokens.fingerprint, picked, encoded_tokens)

    def _launch(self, tokens: TokenBatch, items: list[int], own: dict[Key, int], lane: Lane, send: Send) -> _Flight:
        part = tokens if len(items) == len(tokens) else tokens.select(items)
        flight = _Flight(asyncio.ensure_future(send(part)), lane, items=own)
        self._flying.update(dict.fromkeys(own, flight))
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
    def _collect_borrowed(borrowed: dict[_Flight, list[int]], keys: list[Key]) -> tuple[list[_Picked], list[int]]:
        """Take the results that others' flights brought; return the items that must be encoded after all."""
        picked: list[_Picked] = []
        again: list[int] = []
        for flight, items in borrowed.items():
            task = flight.task
            if task.cancelled() or task.exception() is not None:
                again.extend(items)
                continue
            result = task.result()
            if result.errors:
                # The other call's deadline, for one, is no error of this call.
                again.extend(item for item in items if flight.items[keys[item]] in result.errors)
                items = [item for item in items if flight.items[keys[item]] not in result.errors]
            picked.append(_Picked(result, [flight.items[keys[item]] for item in items], items))
        return picked, again

    @staticmethod
    def _merge(fingerprint: str, picked: Sequence[_Picked], encoded_tokens: int) -> VectorBatch:
        """Put the results of a call's items in order; each item is in one of ``picked``."""
        order = np.argsort(np.concatenate([np.asarray(items, dtype=np.int64) for _, _, items in picked]))
        if len(picked) == 1:
            merged = picked[0].result.select(np.asarray(picked[0].places)[order].tolist())
        else:
            # What is not picked of a message may be many times as large, so that it is left out first.
            parts = [result.select(places) for result, places, _ in picked]
            merged = VectorBatch.concatenate(parts).select(order.tolist())
        merged.fingerprint, merged.encoded_tokens = fingerprint, encoded_tokens
        return merged


def _kept(fingerprint: str, rows: Sequence[tuple[Float32, str]]) -> VectorBatch:
    """Results from the cache as a message; no engine has computed them for this call."""
    return VectorBatch(
        fingerprint=fingerprint,
        values=np.concatenate([part.reshape(-1) for part, _ in rows]),
        offsets=offsets_of([part.size for part, _ in rows]),
        widths=np.asarray([part.shape[1] for part, _ in rows], dtype=np.int32),
        provenance=Provenance.of_items([_NOT_NOW] * len(rows), [build for _, build in rows]),
    )


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

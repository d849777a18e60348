from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from cluster.batching.reuse import ResultCache, Reuse
from cluster.errors import DeadlineExceeded, EngineError
from cluster.types import Lane, PoolingType, Provenance, TokenBatch, VectorBatch, offsets_of
from tests.support.batches import token_batch


def _tokens(*sequences: list[int], pooling: PoolingType = PoolingType.MEAN, fingerprint: str = "f") -> TokenBatch:
    return token_batch(sequences, pooling=pooling, fingerprint=fingerprint)


class _Encoder:
    """Answers each sequence with the sum of its ids; ``gate`` holds the answers back, ``bad`` sequences are errors."""

    def __init__(self) -> None:
        self.encoded: list[tuple[int, ...]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.bad: dict[tuple[int, ...], EngineError | DeadlineExceeded] = {}
        self.failure: Exception | None = None
        self.cancelled = asyncio.Event()
        self.arrived: asyncio.Queue[tuple[int, ...]] = asyncio.Queue()

    async def __call__(self, batch: TokenBatch) -> VectorBatch:
        sequences = [tuple(batch.ids(item).tolist()) for item in range(len(batch))]
        self.encoded += sequences
        for sequence in sequences:
            self.arrived.put_nowait(sequence)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.failure is not None:
            raise self.failure
        errors = {item: self.bad[ids] for item, ids in enumerate(sequences) if ids in self.bad}
        values = [np.asarray([] if ids in self.bad else [sum(ids), len(ids)], np.float32) for ids in sequences]
        return VectorBatch(
            fingerprint=batch.fingerprint,
            values=np.concatenate(values),
            offsets=offsets_of([len(value) for value in values]),
            widths=np.full(len(batch), 2, dtype=np.int32),
            errors=dict(errors),
            encoded_tokens=len(batch.token_ids),
        )


def _sums(result: VectorBatch) -> list[float]:
    return [float(result.rows(item)[0, 0]) for item in range(len(result))]


async def _started(encoder: _Encoder, *sequences: tuple[int, ...]) -> None:
    """Wait until these sequences, and none before them, have reached the encoder."""
    for sequence in sequences:
        assert await encoder.arrived.get() == sequence


async def test_equal_items_of_a_call_are_encoded_once_and_keep_their_places() -> None:
    encoder = _Encoder()
    reuse = Reuse()
    result = await reuse.encode(_tokens([1], [2, 3], [1], [4], [2, 3]), Lane.BULK, encoder)
    assert _sums(result) == [1, 5, 1, 4, 5]
    assert encoder.encoded == [(1,), (2, 3), (4,)]
    assert result.encoded_tokens == 4


async def test_calls_in_flight_share_equal_items() -> None:
    encoder = _Encoder()
    encoder.gate.clear()
    reuse = Reuse()
    first = asyncio.create_task(reuse.encode(_tokens([1], [2]), Lane.INTERACTIVE, encoder))
    await _started(encoder, (1,), (2,))
    second = asyncio.create_task(reuse.encode(_tokens([2], [3]), Lane.INTERACTIVE, encoder))
    await _started(encoder, (3,))
    encoder.gate.set()
    assert _sums(await first) == [1, 2]
    assert _sums(await second) == [2, 3]
    assert encoder.encoded == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    "other",
    [_tokens([1], pooling=PoolingType.CLS), _tokens([1], fingerprint="another"), _tokens([1, 1])],
    ids=["pooling type", "model", "ids"],
)
async def test_items_that_differ_in_anything_are_not_shared(other: TokenBatch) -> None:
    encoder = _Encoder()
    reuse = Reuse(cache_bytes=10_000)
    await reuse.encode(_tokens([1]), Lane.BULK, encoder)
    await reuse.encode(other, Lane.BULK, encoder)
    assert len(encoder.encoded) == 2


async def test_interactive_items_do_not_wait_for_equal_bulk_ones() -> None:
    encoder = _Encoder()
    encoder.gate.clear()
    reuse = Reuse()
    bulk = asyncio.create_task(reuse.encode(_tokens([1]), Lane.BULK, encoder))
    await _started(encoder, (1,))
    interactive = asyncio.create_task(reuse.encode(_tokens([1]), Lane.INTERACTIVE, encoder))
    await _started(encoder, (1,))
    encoder.gate.set()
    assert _sums(await bulk) == _sums(await interactive) == [1]


async def test_a_caller_that_leaves_takes_nothing_from_those_who_share() -> None:
    encoder = _Encoder()
    encoder.gate.clear()
    reuse = Reuse()
    owner = asyncio.create_task(reuse.encode(_tokens([1]), Lane.BULK, encoder))
    await _started(encoder, (1,))
    sharer = asyncio.create_task(reuse.encode(_tokens([1]), Lane.BULK, encoder))
    await asyncio.sleep(0)
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    encoder.gate.set()
    assert _sums(await sharer) == [1]
    assert encoder.encoded == [(1,)]


async def test_work_that_nobody_waits_for_is_cancelled() -> None:
    encoder = _Encoder()
    encoder.gate.clear()
    reuse = Reuse()
    callers = [asyncio.create_task(reuse.encode(_tokens([1]), Lane.BULK, encoder)) for _ in range(2)]
    await _started(encoder, (1,))
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await encoder.cancelled.wait()
    encoder.gate.set()
    assert _sums(await reuse.encode(_tokens([1]), Lane.BULK, encoder)) == [1]


async def test_another_calls_error_is_no_error_of_this_call() -> None:
    encoder = _Encoder()
    encoder.gate.clear()
    encoder.bad[(1,)] = DeadlineExceeded("late")
    reuse = Reuse()
    owner = asyncio.create_task(reuse.encode(_tokens([1]), Lane.BULK, encoder))
    await _started(encoder, (1,))
    patient = _Encoder()
    sharer = asyncio.create_task(reuse.encode(_tokens([1], [2]), Lane.BULK, patient))
    await _started(patient, (2,))
    encoder.gate.set()
    assert isinstance((await owner).errors[0], DeadlineExceeded)
    assert _sums(await sharer) == [1, 2]
    assert patient.encoded == [(2,), (1,)]


async def test_a_lost_message_fails_its_own_call_and_sends_sharers_their_own_way() -> None:
    encoder = _Encoder()
    encoder.gate.clear()
    encoder.failure = EngineError("gone")
    reuse = Reuse()
    owner = asyncio.create_task(reuse.encode(_tokens([1]), Lane.BULK, encoder))
    await _started(encoder, (1,))
    healthy = _Encoder()
    sharer = asyncio.create_task(reuse.encode(_tokens([1]), Lane.BULK, healthy))
    await asyncio.sleep(0)
    encoder.gate.set()
    with pytest.raises(EngineError, match="gone"):
        await owner
    assert _sums(await sharer) == [1]


async def test_items_keep_their_own_errors_beside_shared_results() -> None:
    encoder = _Encoder()
    encoder.bad[(9,)] = EngineError("bad")
    result = await Reuse().encode(_tokens([9], [1], [9], [1]), Lane.BULK, encoder)
    assert sorted(result.errors) == [0, 2]
    assert (result.rows(1)[0, 0], result.rows(3)[0, 0]) == (1, 1)


async def test_cached_items_are_not_encoded_again() -> None:
    encoder = _Encoder()
    reuse = Reuse(cache_bytes=10_000)
    await reuse.encode(_tokens([1], [2]), Lane.BULK, encoder)
    result = await reuse.encode(_tokens([2], [3], [1]), Lane.INTERACTIVE, encoder)
    assert _sums(result) == [2, 3, 1]
    assert encoder.encoded == [(1,), (2,), (3,)]
    assert _sums(await reuse.encode(_tokens([3], [1]), Lane.BULK, encoder)) == [3, 1]
    assert encoder.encoded == [(1,), (2,), (3,)]


def _timed(build: str, spans: list[list[float]]) -> Callable[[TokenBatch], Awaitable[VectorBatch]]:
    """An encoder of one build that takes its sequences at these times."""

    async def send(batch: TokenBatch) -> VectorBatch:
        result = await _Encoder()(batch)
        result.provenance = Provenance.of(np.asarray(spans[: len(batch)]), build)
        return result

    return send


async def test_every_item_says_when_and_by_which_build_it_was_computed() -> None:
    reuse = Reuse(cache_bytes=10_000)
    await reuse.encode(_tokens([1], [2]), Lane.BULK, _timed("old", [[1.0, 2.0], [2.0, 3.0]]))
    result = await reuse.encode(_tokens([1], [3], [3]), Lane.BULK, _timed("new", [[5.0, 6.0]]))
    np.testing.assert_array_equal(result.provenance.spans, [[np.nan, np.nan], [5.0, 6.0], [5.0, 6.0]])
    assert [result.provenance.build_of(item) for item in range(3)] == ["old", "new", "new"]
    assert result.provenance.used_builds == ("new", "old")
    kept = await reuse.encode(_tokens([1]), Lane.BULK, _timed("newer", [[7.0, 8.0]]))
    assert kept.provenance.used_builds == ("old",)


async def test_an_item_that_another_call_computes_has_that_calls_span() -> None:
    encoder = _Encoder()
    encoder.gate.clear()

    async def timed(batch: TokenBatch) -> VectorBatch:
        result = await encoder(batch)
        result.provenance = Provenance.of(np.asarray([[1.0, 2.0], [2.0, 3.0]]), "one")
        return result

    reuse = Reuse()
    first = asyncio.create_task(reuse.encode(_tokens([1], [2]), Lane.INTERACTIVE, timed))
    await _started(encoder, (1,), (2,))
    second = asyncio.create_task(reuse.encode(_tokens([2], [3]), Lane.INTERACTIVE, _timed("two", [[4.0, 5.0]])))
    await asyncio.sleep(0)
    encoder.gate.set()
    await first
    result = await second
    assert result.provenance.spans.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert result.provenance.used_builds == ("one", "two")


async def test_errors_are_not_cached() -> None:
    encoder = _Encoder()
    encoder.bad[(1,)] = EngineError("once")
    reuse = Reuse(cache_bytes=10_000)
    assert (await reuse.encode(_tokens([1]), Lane.BULK, encoder)).errors
    encoder.bad.clear()
    assert _sums(await reuse.encode(_tokens([1]), Lane.BULK, encoder)) == [1]


def test_the_cache_stays_within_its_bytes_and_drops_the_oldest() -> None:
    cache = ResultCache(3_000)
    rows = np.ones((1, 100), dtype=np.float32)
    keys = [("f", 1, -1, bytes([n])) for n in range(8)]
    for key in keys[:3]:
        cache.put(key, rows)
    assert cache.get(keys[0]) is not None
    for key in keys[3:]:
        cache.put(key, rows)
        assert cache.size_bytes <= 3_000
    assert cache.get(keys[1]) is None
    assert cache.get(keys[7]) is not None
    assert len(cache) == 3
    cache.put(("f", 1, -1, b"large"), np.ones((1, 1_000), dtype=np.float32))
    assert cache.get(("f", 1, -1, b"large")) is None

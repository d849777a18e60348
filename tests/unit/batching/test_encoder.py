from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from cluster.batching.encoder import Encoder
from cluster.batching.planning import Filling, MicroBatchSizes
from cluster.engine.fake import FakeEngine
from cluster.errors import DeadlineExceeded, EngineError, ReplicaLost
from cluster.pooling import pool_one
from cluster.types import Float32, Int32, Int64, Lane, PoolingType, offsets_of
from tests.support.batches import token_batch


class _GatedEngine(FakeEngine):
    """Records its calls; while ``gate`` is closed, calls wait in the engine."""

    def __init__(self, slots: int = 1) -> None:
        super().__init__(slots=slots, max_micro_batch_tokens=512)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.calls: list[tuple[int, int | None, list[int]]] = []
        self.failure: Exception | None = None

    def encode(self, token_ids: Int32, offsets: Int64, *, slot: int = 0, threads: int | None = None) -> Float32:
        self.calls.append((slot, threads, np.diff(offsets).tolist()))
        self.entered.release()
        assert self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        return super().encode(token_ids, offsets, slot=slot, threads=threads)


@contextmanager
def _encoder(engine: FakeEngine, size: int | MicroBatchSizes = 100) -> Iterator[Encoder]:
    encoder = Encoder(engine, "f", size)
    try:
        yield encoder
    finally:
        if isinstance(engine, _GatedEngine):
            engine.gate.set()
        encoder.close()


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("pooling", [PoolingType.NONE, PoolingType.MEAN, PoolingType.LAST])
def test_every_item_gets_its_own_rows_in_any_mix(slots: int, pooling: PoolingType) -> None:
    random = np.random.default_rng(slots)
    sequences = [random.integers(1000, 2000, size=int(random.integers(1, 60))).tolist() for _ in range(120)]
    with _encoder(FakeEngine(slots=slots)) as encoder:
        messages = [sequences[begin : begin + 30] for begin in range(0, 120, 30)]
        futures = [encoder.submit(token_batch(message, pooling=pooling)) for message in messages]
        for message, future in zip(messages, futures, strict=True):
            result = future.result(30)
            assert result.encoded_tokens == sum(map(len, message))
            for item, ids in enumerate(message):
                hidden = FakeEngine().encode(np.asarray(ids, dtype=np.int32), offsets_of([len(ids)]))
                wanted = pool_one(hidden, pooling).reshape(-1, hidden.shape[1])
                np.testing.assert_array_equal(result.rows(item), wanted)
        assert encoder.pending_tokens == 0
        assert encoder.encoded_tokens == sum(map(len, sequences))


def test_slots_work_at_once_with_their_share_of_the_threads() -> None:
    engine = _GatedEngine(slots=2)
    engine.gate.clear()
    with _encoder(engine) as encoder:
        future = encoder.submit(token_batch([[5] * 90, [6] * 90, [7] * 90]))
        for _ in range(2):
            assert engine.entered.acquire(timeout=30)
        assert sorted(slot for slot, _, _ in engine.calls) == [0, 1]
        assert [threads for _, threads, _ in engine.calls] == [1, 1]
        engine.gate.set()
        future.result(30)


def test_a_lone_micro_batch_takes_all_threads() -> None:
    engine = _GatedEngine(slots=2)
    with _encoder(engine) as encoder:
        encoder.submit(token_batch([[5] * 10])).result(30)
    assert [threads for _, threads, _ in engine.calls] == [2]


def test_interactive_work_waits_for_one_micro_batch_of_bulk_at_most() -> None:
    engine = _GatedEngine()
    engine.gate.clear()
    with _encoder(engine) as encoder:
        bulk = encoder.submit(token_batch([[5] * 100] * 10, lane=Lane.BULK))
        assert engine.entered.acquire(timeout=30)
        interactive = encoder.submit(token_batch([[6] * 7]))
        engine.gate.set()
        interactive.result(30)
        bulk.result(30)
    assert [lengths for _, _, lengths in engine.calls][1] == [7]


def test_work_whose_deadline_passed_in_the_queue_is_not_encoded() -> None:
    engine = _GatedEngine()
    engine.gate.clear()
    with _encoder(engine) as encoder:
        first = encoder.submit(token_batch([[5] * 100]))
        assert engine.entered.acquire(timeout=30)
        late = encoder.submit(token_batch([[6] * 3], remaining_s=0.0))
        engine.gate.set()
        assert isinstance(late.result(30).errors[0], DeadlineExceeded)
        assert not first.result(30).errors
    assert [lengths for _, _, lengths in engine.calls] == [[100]]


def test_an_item_too_long_for_the_engine_is_refused_alone() -> None:
    with _encoder(FakeEngine()) as encoder:
        result = encoder.submit(token_batch([[5], [6] * 513, [7]])).result(30)
    assert list(result.errors) == [1]
    assert "513 tokens" in result.errors[1].message
    assert len(result.rows(0)) == len(result.rows(2)) == 1


def test_a_failed_call_is_the_error_of_its_items_and_of_no_others() -> None:
    engine = _GatedEngine()
    with _encoder(engine) as encoder:
        engine.failure = EngineError("out of order")
        assert "out of order" in encoder.submit(token_batch([[5]])).result(30).errors[0].message
        engine.failure = ValueError("surprise")
        assert "surprise" in encoder.submit(token_batch([[5]])).result(30).errors[0].message
        engine.failure = None
        assert not encoder.submit(token_batch([[5]])).result(30).errors
        encoder.check_health()


def test_queued_messages_fail_on_close_and_later_ones_are_refused() -> None:
    engine = _GatedEngine()
    engine.gate.clear()
    encoder = Encoder(engine, "f", 100)
    running = encoder.submit(token_batch([[5] * 100]))
    assert engine.entered.acquire(timeout=30)
    queued = encoder.submit(token_batch([[6] * 100]))
    closing = threading.Thread(target=encoder.close)
    closing.start()
    with pytest.raises(ReplicaLost, match="closed"):
        queued.result(30)
    engine.gate.set()
    closing.join(30)
    assert not running.result(0).errors
    with pytest.raises(ReplicaLost, match="closed"):
        encoder.submit(token_batch([[5]])).result(30)
    with pytest.raises(EngineError, match="closed"):
        encoder.check_health()


def test_only_the_first_slot_ever_computes_with_all_threads() -> None:
    engine = _GatedEngine(slots=3)
    engine.threads = 6
    with _encoder(engine) as encoder:
        for _ in range(20):
            encoder.submit(token_batch([[1, 2]])).result(30)
        assert {(slot, threads) for slot, threads, _ in engine.calls} == {(0, 6)}
        engine.calls.clear()
        engine.gate.clear()
        engine.entered = threading.Semaphore(0)
        # Each is held in the engine when the next one comes.
        held = []
        for _ in range(3):
            held.append(encoder.submit(token_batch([[1, 2]])))
            assert engine.entered.acquire(timeout=30)
        engine.gate.set()
        for future in held:
            future.result(30)
    assert [(slot, threads) for slot, threads, _ in engine.calls] == [(0, 6), (1, 2), (2, 2)]


def test_every_item_has_the_span_of_the_call_that_computed_it() -> None:
    engine = _GatedEngine()
    engine.gate.clear()
    with _encoder(engine, 60) as encoder:
        before_s = time.monotonic()
        # Each sequence fills a call: the second one waits in the queue until the first has come back.
        message = token_batch([[7] * 50, [8] * 50])
        message.errors[1] = EngineError("bad")
        bad = encoder.submit(message)
        both = encoder.submit(token_batch([[5] * 50, [6] * 50]))
        assert engine.entered.acquire(timeout=30)
        held_s = time.monotonic()
        engine.gate.set()
        first, second = bad.result(30).provenance, both.result(30).provenance
        after_s = time.monotonic()
    (begin_s, end_s), nothing = first.spans.tolist()
    assert before_s <= begin_s <= held_s <= end_s
    assert np.isnan(nothing).all()
    assert [first.build_of(item) for item in range(2)] == ["fake", ""]
    spans = np.concatenate([first.spans[:1], second.spans[np.argsort(second.spans[:, 0])]])
    assert (spans[:, 0] <= spans[:, 1]).all()
    assert (spans[1:, 0] >= spans[:-1, 1]).all()
    assert spans[-1, 1] <= after_s


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a thread a nice value of its own")
def test_the_engine_s_threads_give_way_and_the_caller_s_does_not() -> None:
    class Engine(FakeEngine):
        def encode(self, token_ids: Int32, offsets: Int64, *, slot: int = 0, threads: int | None = None) -> Float32:
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return super().encode(token_ids, offsets, slot=slot, threads=threads)

    seen: list[int] = []
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    encoder = Encoder(Engine(max_micro_batch_tokens=64), "f", 64, nice=10)
    try:
        encoder.submit(token_batch([[1, 2]])).result(30)
    finally:
        encoder.close()
    assert seen == [min(19, before + 10)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


FILLED = MicroBatchSizes(((64, 1.0), (128, 1.0)), Filling(64, 16, ((24, 0.5, 2.0), (63, 1.0, 2.0))))


@pytest.mark.parametrize("pooling", [PoolingType.NONE, PoolingType.MEAN, PoolingType.LAST])
def test_a_small_call_is_filled_and_nobody_sees_the_filler(pooling: PoolingType) -> None:
    ids = list(range(1000, 1050))
    engine = _GatedEngine()
    with _encoder(engine, FILLED) as encoder:
        filled = encoder.submit(token_batch([ids], pooling=pooling)).result(30)
        assert encoder.submit(token_batch([ids[:20]], pooling=pooling)).result(30).encoded_tokens == 20
        assert encoder.encoded_tokens == filled.encoded_tokens + 20 == 70
    assert [lengths for _, _, lengths in engine.calls] == [[50, 14], [20]]
    with _encoder(FakeEngine()) as encoder:
        plain = encoder.submit(token_batch([ids], pooling=pooling)).result(30)
    np.testing.assert_array_equal(filled.rows(0), plain.rows(0))


class _Scoring(FakeEngine):
    """Records what is to be scored."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[int], list[int]]] = []

    def score(self, token_ids: Int32, offsets: Int64, second_segment: Int32, **options: Any) -> Float32:
        self.calls.append((np.diff(offsets).tolist(), second_segment.tolist()))
        return super().score(token_ids, offsets, second_segment, **options)


def test_filler_stands_behind_the_pairs_and_has_no_score() -> None:
    batch = token_batch([[*range(1000, 1030), *range(1020, 1040)]], pooling=PoolingType.RANK)
    batch.second_segment[:] = 30
    filled, plain = _Scoring(), _Scoring()
    with _encoder(filled, FILLED) as encoder:
        scores = encoder.submit(batch).result(30)
    assert filled.calls == [([50, 14], [30, -1])]
    with _encoder(plain) as encoder:
        np.testing.assert_array_equal(encoder.submit(batch).result(30).values, scores.values)
    assert plain.calls == [([50], [30])]

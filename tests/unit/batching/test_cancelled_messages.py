"""A message whose caller has gone is not encoded once its turn comes; a stuck engine is seen."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from cluster.batching import encoder as module
from cluster.batching.encoder import Encoder
from cluster.engine.fake import FakeEngine
from cluster.errors import EngineError, ReplicaLost, VersionChanged
from cluster.types import Backlog, Float32, Int32, Int64, TokenBatch
from tests.support.batches import token_batch


class _HeldEngine(FakeEngine):
    """Stays in a call until it is released."""

    def __init__(self) -> None:
        super().__init__(max_micro_batch_tokens=16)
        self.entered, self.release = threading.Event(), threading.Event()
        self.seen: list[int] = []

    def encode(self, token_ids: Int32, offsets: Int64, *, slot: int = 0, threads: int | None = None) -> Float32:
        self.seen += token_ids.tolist()
        self.entered.set()
        assert self.release.wait(30)
        return super().encode(token_ids, offsets)


def _message(token_id: int, fingerprint: str = "f") -> TokenBatch:
    return token_batch([[token_id]], fingerprint=fingerprint, backlog=Backlog("ingress", 7, 1.0))


def test_a_cancelled_message_never_reaches_the_engine() -> None:
    engine = _HeldEngine()
    encoder = Encoder(engine, "f", 16)
    first = encoder.submit(_message(1))
    assert engine.entered.wait(30)
    gone, last = encoder.submit(_message(2)), encoder.submit(_message(3))
    assert encoder.pending_tokens == 3
    assert gone.cancel()
    assert encoder.pending_tokens == 2
    engine.release.set()
    first.result(30)
    last.result(30)
    encoder.close()
    assert engine.seen == [1, 3]
    assert encoder.pending_tokens == 0


def test_items_whose_callers_have_gone_never_reach_the_engine() -> None:
    engine = _HeldEngine()
    encoder = Encoder(engine, "f", 16)
    first = encoder.submit(_message(1))
    assert engine.entered.wait(30)
    message = TokenBatch.concatenate([_message(token_id) for token_id in (2, 3, 4)])
    shared = encoder.submit(message)
    message.gone.update({0, 2})
    engine.release.set()
    first.result(30)
    assert shared.result(30).rows(1).size
    encoder.close()
    assert engine.seen == [1, 3]
    assert encoder.pending_tokens == 0


def test_a_call_that_does_not_come_back_fails_the_health_check(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _HeldEngine()
    encoder = Encoder(engine, "f", 16)
    done = encoder.submit(_message(1))
    assert engine.entered.wait(30)
    encoder.check_health()
    monkeypatch.setattr(module, "_STUCK_S", -60.0)
    with pytest.raises(EngineError, match="has not come back"):
        encoder.check_health()
    with pytest.raises(ReplicaLost):
        done.result(30)
    engine.release.set()
    encoder.close()


def test_an_answer_reports_what_waits_at_other_ingresses() -> None:
    encoder = Encoder(FakeEngine(), "f", 16)
    encoder.submit(_message(1)).result(30)
    other = _message(2)
    other.backlog = Backlog("another ingress", 5, 1.0)
    report = encoder.submit(other).result(30).report
    assert report is not None
    assert report.elsewhere_tokens == 7
    encoder.close()


def test_a_message_of_another_version_is_to_be_prepared_again() -> None:
    encoder = Encoder(FakeEngine(), "f", 16)
    with pytest.raises(VersionChanged):
        encoder.submit(_message(1, "g")).result(30)
    encoder.close()


async def test_a_result_goes_with_its_last_user_and_not_with_the_garbage_collector() -> None:
    encoder = Encoder(FakeEngine(), "f", 16)
    gc.disable()
    try:
        result = await asyncio.wrap_future(encoder.submit(_message(2000)))
        gone = weakref.ref(result.values)
        del result
        for _ in range(1000):
            # The encoder's thread lets go of it a moment later.
            if gone() is None:
                break
            await asyncio.to_thread(lambda: None)
        assert gone() is None
    finally:
        gc.enable()
        encoder.close()

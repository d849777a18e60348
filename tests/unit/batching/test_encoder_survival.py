"""What must not end an encoder's threads: a replica without them looks alive and answers nobody."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from cluster.batching.encoder import Encoder
from cluster.batching.jobs import Job
from cluster.engine.fake import FakeEngine
from cluster.types import Float32, TokenBatch, VectorBatch
from tests.support.batches import token_batch

WITHIN_S = 20.0


class _Gated(FakeEngine):
    """Waits in its first call until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.gate = threading.Event()

    def encode(self, *args: Any, **options: Any) -> Float32:
        self.entered.set()
        assert self.gate.wait(WITHIN_S)
        return super().encode(*args, **options)


@pytest.fixture
def engine() -> _Gated:
    return _Gated()


@pytest.fixture
def encoder(engine: _Gated) -> Iterator[Encoder]:
    encoder = Encoder(engine, "f", 64)
    try:
        yield encoder
    finally:
        engine.gate.set()
        encoder.close()


def _message(*lengths: int) -> TokenBatch:
    return token_batch([range(length) for length in lengths])


def test_a_message_may_end_before_an_older_one_that_fills_several_micro_batches(
    engine: _Gated, encoder: Encoder
) -> None:
    first = encoder.submit(_message(8))
    assert engine.entered.wait(WITHIN_S)
    # 60 + 4 tokens fill one micro-batch, so the younger message is taken whole and the older one is not.
    older, younger = encoder.submit(_message(60, 60)), encoder.submit(_message(4))
    engine.gate.set()
    answers: list[VectorBatch] = [future.result(WITHIN_S) for future in (first, younger, older)]
    assert [len(answer) for answer in answers] == [1, 1, 2]
    encoder.check_health()


def test_a_caller_may_give_up_before_the_encoder_begins(engine: _Gated, encoder: Encoder) -> None:
    first = encoder.submit(_message(8))
    assert engine.entered.wait(WITHIN_S)
    assert encoder.submit(_message(4)).cancel()
    engine.gate.set()
    first.result(WITHIN_S)
    assert len(encoder.submit(_message(4)).result(WITHIN_S)) == 1
    encoder.check_health()


def test_a_caller_may_give_up_while_its_result_is_put_together(
    engine: _Gated, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Job.result

    def gives_up(job: Job, fingerprint: str) -> VectorBatch:
        job.done.cancel()
        return whole(job, fingerprint)

    engine.gate.set()
    with monkeypatch.context() as patch:
        patch.setattr(Job, "result", gives_up)
        left = encoder.submit(_message(4))
        assert engine.entered.wait(WITHIN_S)
        with contextlib.suppress(CancelledError):
            left.result(WITHIN_S)
    assert len(encoder.submit(_message(4)).result(WITHIN_S)) == 1
    encoder.check_health()

"""An encoder that cannot go on says so: to who waits, to who comes, and to the health check."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from cluster.batching import encoder as module
from cluster.batching.encoder import Encoder
from cluster.batching.jobs import Job
from cluster.batching.lanes import LaneQueues
from cluster.batching.reports import Backlogs, Throughput
from cluster.engine.fake import FakeEngine
from cluster.errors import EngineError, ReplicaLost
from cluster.types import Float32, VectorBatch
from tests.support.batches import token_batch

WITHIN_S = 20.0


class _Held(FakeEngine):
    """Stays in each call until it is released."""

    def __init__(self, slots: int = 1) -> None:
        super().__init__(max_micro_batch_tokens=16, slots=slots)
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()
        self.failure: BaseException | None = None

    def encode(self, *args: Any, **options: Any) -> Float32:
        self.entered.release()
        assert self.release.wait(WITHIN_S)
        if self.failure is not None:
            raise self.failure
        return super().encode(*args, **options)

    @property
    def is_freed(self) -> bool:
        return self._closed


@pytest.fixture(params=[1, 3])
def engine(request: pytest.FixtureRequest) -> _Held:
    return _Held(request.param)


@pytest.fixture
def encoder(engine: _Held) -> Iterator[Encoder]:
    encoder = Encoder(engine, "f", 16)
    yield encoder
    engine.release.set()
    encoder.close()


def _fill(encoder: Encoder, engine: _Held) -> list[Future[VectorBatch]]:
    """A message for each slot, held in the engine, and one more that waits."""
    futures = []
    for _ in range(engine.slots):
        futures.append(encoder.submit(token_batch([[5] * 10])))
        assert engine.entered.acquire(timeout=WITHIN_S)
    return [*futures, encoder.submit(token_batch([[6] * 10, [7] * 10]))]


def _is_lost(encoder: Encoder, futures: list[Future[VectorBatch]]) -> None:
    errors = [future.exception(WITHIN_S) for future in futures]
    assert all(isinstance(error, ReplicaLost) and "send the request again" in error.message for error in errors), errors
    with pytest.raises(EngineError, match="must be replaced"):
        encoder.check_health()
    assert isinstance(encoder.submit(token_batch([[8]])).exception(0), ReplicaLost)


def _raise(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    return fail


# Steps of a thread besides the engine's call, the first and the last of them among these.
STEPS: dict[str, tuple[type, str]] = {
    "takes a micro-batch": (LaneQueues, "take"),
    "measures the speed": (Throughput, "add"),
    "writes the report": (Backlogs, "elsewhere"),
    "puts a result together": (Job, "result"),
}


@pytest.mark.parametrize("error", [MemoryError(), ValueError("surprise"), SystemExit()], ids=repr)
@pytest.mark.parametrize("step", STEPS)
def test_a_thread_that_ends_at_any_step_leaves_nobody_waiting(
    engine: _Held, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    futures = _fill(encoder, engine)
    monkeypatch.setattr(*STEPS[step], _raise(error))
    engine.release.set()
    # What was in the engine already may be answered before the step fails; what waits behind it is not.
    answers = [future.exception(WITHIN_S) for future in futures]
    assert all(answer is None or isinstance(answer, ReplicaLost) for answer in answers)
    _is_lost(encoder, futures[-1:])
    monkeypatch.undo()
    encoder.close()
    assert encoder.pending_tokens == 0


@pytest.mark.parametrize("error", [MemoryError(), SystemExit()], ids=repr)
def test_a_call_that_no_error_of_its_items_explains_ends_the_encoder(
    engine: _Held, encoder: Encoder, error: BaseException
) -> None:
    futures = _fill(encoder, engine)
    engine.failure = error
    engine.release.set()
    _is_lost(encoder, futures)
    encoder.close()
    assert encoder.pending_tokens == 0


def test_several_messages_of_one_micro_batch_all_learn_of_the_loss(
    engine: _Held, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    futures = _fill(encoder, engine)
    futures += [encoder.submit(token_batch([[9]])) for _ in range(3)]
    monkeypatch.setattr(Job, "result", _raise(MemoryError()))
    engine.release.set()
    _is_lost(encoder, futures)


def test_a_stuck_call_ends_the_encoder_and_does_not_hold_up_its_close(
    engine: _Held, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    futures = _fill(encoder, engine)
    encoder.check_health()
    assert not any(future.done() for future in futures)
    monkeypatch.setattr(module, "_STUCK_S", -60.0)
    with pytest.raises(EngineError, match="has not come back"):
        encoder.check_health()
    _is_lost(encoder, futures)
    monkeypatch.setattr(module, "_CLOSE_WITHIN_S", 0.0)
    encoder.close()
    # The call may still read what would be freed.
    assert not engine.is_freed


def test_a_closed_encoder_is_unhealthy_and_may_be_closed_again(engine: _Held, encoder: Encoder) -> None:
    engine.release.set()
    encoder.close()
    assert engine.is_freed
    with pytest.raises(EngineError, match="was closed"):
        encoder.check_health()
    encoder.close()
    assert isinstance(encoder.submit(token_batch([[8]])).exception(0), ReplicaLost)


def test_what_is_in_work_when_the_encoder_is_closed_is_answered_unless_it_takes_too_long(
    engine: _Held, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    futures = _fill(encoder, engine)
    monkeypatch.setattr(module, "_CLOSE_WITHIN_S", 0.0)
    encoder.close()
    _is_lost(encoder, futures)
    assert not engine.is_freed
    engine.release.set()
    for worker in encoder._workers:
        worker.join(WITHIN_S)
    encoder.close()
    assert engine.is_freed


@pytest.mark.parametrize("fault", ["out_of_memory", "hang"])
def test_the_fake_engine_fails_as_it_is_told(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(FakeEngine(faults={13: fault}), "f", 16)
    assert not encoder.submit(token_batch([[12]])).result(WITHIN_S).errors
    future = encoder.submit(token_batch([[13]]))
    if fault == "hang":
        while not encoder.load.running:
            assert not future.done()
        monkeypatch.setattr(module, "_STUCK_S", -60.0)
        monkeypatch.setattr(module, "_CLOSE_WITHIN_S", 0.0)
        with pytest.raises(EngineError, match="has not come back"):
            encoder.check_health()
    _is_lost(encoder, [future])
    encoder.close()

"""The carrier of messages over handles that lose replicas, hang or answer, without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

from cluster.errors import (
    CallFailed,
    DeadlineExceeded,
    MessageTooLarge,
    NotReady,
    Overloaded,
    PoisonousInput,
    ReplicaLost,
)
from cluster.quarantine import Bound
from deployments import retries
from deployments.placements import Placements, answers
from deployments.retries import Carrier, call_again


class _Response:
    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome
        self.cancelled = False

    def __await__(self) -> Generator[Any, None, Any]:
        if self._outcome is _HANG:
            yield from asyncio.get_running_loop().create_future()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome
        yield

    def cancel(self) -> None:
        self.cancelled = True


_HANG = object()


class _Replica:
    def __init__(self, name: str, alive: bool) -> None:
        self.replica_id = SimpleNamespace(unique_id=name)
        self._alive = alive

    async def get_queue_len(self, *, deadline_s: float) -> int:
        if not self._alive:
            await asyncio.get_running_loop().create_future()
        return 1


class _Handle:
    """Gives each call the next outcome, and notes its replica as the router would."""

    def __init__(self, placements: Placements, *outcomes: Any, alive: bool = True) -> None:
        self._placements = placements
        self._outcomes = list(outcomes)
        self._alive = alive
        self.responses: list[_Response] = []
        self.by_reference: list[bool] = []
        self.encode = self

    def options(self, *, _by_reference: bool) -> Any:
        """A handle whose calls go through the object store."""
        assert _by_reference
        return SimpleNamespace(encode=SimpleNamespace(remote=lambda message: self._send(message, by_reference=True)))

    def remote(self, message: object) -> _Response:
        return self._send(message, by_reference=False)

    def _send(self, message: object, *, by_reference: bool) -> _Response:
        self.by_reference.append(by_reference)
        response = _Response(self._outcomes.pop(0))
        self.responses.append(response)
        self._placements.note(message, _Replica(f"replica-{len(self.responses)}", self._alive))
        return response


@pytest.fixture
async def placements(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Placements]:
    fresh = Placements()
    monkeypatch.setattr(retries, "placements", fresh)
    monkeypatch.setattr(retries, "_FIRST_LOOK_S", 0.01)
    monkeypatch.setattr(retries, "_NEXT_LOOK_S", 0.01)
    monkeypatch.setattr("deployments.placements.PROBE_TIMEOUT_S", 0.01)
    yield fresh
    fresh.close()
    # A step of the loop, so that the probes' tasks end with the test.
    await asyncio.sleep(0)


def _lost() -> ActorUnavailableError:
    return ActorUnavailableError("the connection broke", None)


def _status(code: grpc.StatusCode) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), "details")


def _trusted(placements: Placements, handle: _Handle) -> bool:
    """Whether every replica that the message went to would get another one."""
    replicas = [_Replica(f"replica-{number + 1}", True) for number in range(len(handle.responses))]
    return placements.trusted(replicas) == replicas


def _carrier(handle: Any, limit_s: float | None = 30.0, **options: Any) -> Carrier[Any, str]:
    return Carrier(handle, "encode", lambda message: limit_s, **options)


async def test_a_message_whose_replica_died_goes_to_another(placements: Placements) -> None:
    handle = _Handle(placements, _lost(), "answer")
    assert await _carrier(handle).send("message") == "answer"


async def test_the_replica_that_was_lost_is_suspect(placements: Placements) -> None:
    await _carrier(_Handle(placements, _lost(), "answer")).send("message")
    first, second = _Replica("replica-1", True), _Replica("replica-2", True)
    assert placements.trusted([first, second]) == [second]


async def test_a_message_that_loses_every_replica_is_given_up(placements: Placements) -> None:
    handle = _Handle(placements, *(_lost() for _ in range(9)))
    with pytest.raises(ReplicaLost):
        await _carrier(handle, most_losses=3).send("message")
    assert len(handle.responses) == 3


async def _isolate(message: str) -> str:
    return f"{message}, alone"


async def test_a_message_that_two_replicas_died_with_is_isolated(placements: Placements) -> None:
    handle = _Handle(placements, _lost(), _lost())
    assert await _carrier(handle, isolate=_isolate).send("message") == "message, alone"
    assert len(handle.responses) == 2


async def test_a_message_whose_call_was_cancelled_or_failed_unexplained_is_not_suspected(
    placements: Placements,
) -> None:
    handle = _Handle(placements, RequestCancelledError("r"), _status(grpc.StatusCode.INTERNAL), _lost(), "answer")
    assert await _carrier(handle, isolate=_isolate).send("message") == "answer"


async def test_what_a_replica_gives_back_since_it_is_lost_goes_to_another(placements: Placements) -> None:
    handle = _Handle(placements, ReplicaLost("its engine has ended"), "answer")
    assert await _carrier(handle, isolate=_isolate).send("message") == "answer"
    assert not _trusted(placements, handle)


async def test_a_message_that_two_encoders_ended_with_is_isolated(placements: Placements) -> None:
    handle = _Handle(placements, ReplicaLost("its engine has ended"), ReplicaLost("as well"), "not asked")
    assert await _carrier(handle, isolate=_isolate).send("message") == "message, alone"
    assert len(handle.responses) == 2


async def test_what_cannot_be_tried_alone_is_told_as_it_was_said(placements: Placements) -> None:
    async def refused(message: str) -> str:
        raise ReplicaLost("no child starts here")

    handle = _Handle(placements, _lost(), _lost(), "answer")
    with pytest.raises(ReplicaLost, match="no child starts here"):
        await _carrier(handle, isolate=refused).send("message")
    assert len(handle.responses) == 2


class _Trial:
    """An isolation that takes as long as it is let."""

    def __init__(self) -> None:
        self.begun, self.end = asyncio.Event(), asyncio.Event()
        self.learnt: list[tuple[str, str]] = []
        self.concluded = asyncio.Event()

    async def isolate(self, message: str) -> str:
        self.begun.set()
        await self.end.wait()
        return "a verdict"

    def learn(self, message: str, answer: str) -> None:
        self.learnt.append((message, answer))
        self.concluded.set()


async def test_a_verdict_is_found_and_kept_though_all_callers_have_left(placements: Placements) -> None:
    trial = _Trial()
    carrier = _carrier(_Handle(placements, _lost(), _lost()), isolate=trial.isolate, learn=trial.learn)
    task = asyncio.create_task(carrier.send("deadly"))
    await trial.begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    trial.end.set()
    async with asyncio.timeout(30):
        await trial.concluded.wait()
    assert trial.learnt == [("deadly", "a verdict")]


async def test_a_verdict_is_found_and_kept_though_it_takes_longer_than_the_message_has(placements: Placements) -> None:
    trial = _Trial()
    handle = _Handle(placements, _lost(), _lost())
    with pytest.raises(DeadlineExceeded):
        await _carrier(handle, limit_s=0.05, isolate=trial.isolate, learn=trial.learn).send("deadly")
    trial.end.set()
    async with asyncio.timeout(30):
        await trial.concluded.wait()
    assert trial.learnt == [("deadly", "a verdict")]


async def test_a_message_that_one_replica_died_with_is_tried_alone_at_once_when_its_callers_have_left(
    placements: Placements,
) -> None:
    trial = _Trial()
    trial.end.set()
    handle = _Handle(placements, _lost(), _HANG)
    task = asyncio.create_task(_carrier(handle, isolate=trial.isolate, learn=trial.learn).send("deadly"))
    async with asyncio.timeout(30):
        while len(handle.responses) < 2:  # noqa: ASYNC110  # nothing tells of a response
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(30):
        await trial.concluded.wait()
    # The second replica's call is given up with its callers: it must not have to die for the verdict.
    assert handle.responses[1].cancelled
    assert trial.learnt == [("deadly", "a verdict")]


async def test_isolations_are_bounded_and_what_cannot_be_tried_alone_meets_no_further_replica(
    placements: Placements,
) -> None:
    bound = Bound(1, 600.0)
    handle = _Handle(placements, _lost(), _lost(), _lost(), _lost(), _lost())
    carrier = _carrier(handle, isolate=_isolate, isolations=bound)
    assert await carrier.send("first") == "first, alone"
    assert len(handle.responses) == 2
    with pytest.raises(ReplicaLost) as caught:
        await carrier.send("second")
    assert 0 < caught.value.extra["retry_after_s"] <= 600  # type: ignore[operator]
    # One replica, and no second one: nothing could find out whether the message ends each that it meets.
    assert len(handle.responses) == 3


async def test_a_single_item_that_grpc_finds_too_large_goes_through_the_object_store(placements: Placements) -> None:
    handle = _Handle(placements, _status(grpc.StatusCode.RESOURCE_EXHAUSTED), "answer")
    assert await _carrier(handle).send(["item"]) == "answer"
    assert handle.by_reference == [False, True]
    assert _trusted(placements, handle)


async def test_a_message_of_several_items_that_is_too_large_is_left_to_its_sender(placements: Placements) -> None:
    handle = _Handle(placements, _status(grpc.StatusCode.RESOURCE_EXHAUSTED), "answer")
    with pytest.raises(MessageTooLarge):
        await _carrier(handle).send(["item", "item"])
    assert len(handle.responses) == 1
    assert _trusted(placements, handle)


async def test_an_item_that_has_room_nowhere_is_refused_as_too_large(placements: Placements) -> None:
    handle = _Handle(placements, *(_status(grpc.StatusCode.RESOURCE_EXHAUSTED) for _ in range(2)), "answer")
    with pytest.raises(MessageTooLarge) as caught:
        await _carrier(handle).send(["item"])
    assert caught.value.status == 413
    assert _trusted(placements, handle)


async def test_what_is_known_to_be_too_large_is_never_sent_by_grpc(placements: Placements) -> None:
    handle = _Handle(placements, _lost(), "answer")
    assert await _carrier(handle, oversized=lambda message: True).send(["item"]) == "answer"
    assert handle.by_reference == [True, True]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.DATA_LOSS,
    ],
)
async def test_a_status_that_says_nothing_of_the_replica_ejects_none(
    placements: Placements, code: grpc.StatusCode
) -> None:
    handle = _Handle(placements, _status(code), "answer")
    assert await _carrier(handle).send("message") == "answer"
    assert _trusted(placements, handle)
    handle = _Handle(placements, *(_status(code) for _ in range(9)))
    with pytest.raises(CallFailed):
        await _carrier(handle).send("message")
    assert len(handle.responses) == 3
    assert _trusted(placements, handle)


async def test_a_replica_that_grpc_cannot_reach_is_lost(placements: Placements) -> None:
    handle = _Handle(placements, _status(grpc.StatusCode.UNAVAILABLE), "answer")
    assert await _carrier(handle).send("message") == "answer"
    assert not _trusted(placements, handle)


@pytest.mark.parametrize(
    ("raised", "told"), [(BackPressureError(1, 1), Overloaded), (DeploymentUnavailableError("d"), NotReady)]
)
async def test_a_deployment_that_takes_no_calls_has_lost_no_replica(
    placements: Placements, raised: Exception, told: type[Exception]
) -> None:
    handle = _Handle(placements, raised, "answer")
    with pytest.raises(told):
        await _carrier(handle).send("message")
    assert len(handle.responses) == 1
    assert _trusted(placements, handle)


async def test_what_the_stage_says_of_the_message_is_no_loss(placements: Placements) -> None:
    handle = _Handle(placements, PoisonousInput("deadly"), "answer")
    with pytest.raises(PoisonousInput):
        await _carrier(handle).send("message")
    assert len(handle.responses) == 1


async def test_a_replica_that_hangs_is_passed_by(placements: Placements) -> None:
    handle = _Handle(placements, _HANG, "answer", alive=False)
    assert await _carrier(handle).send("message") == "answer"
    await asyncio.sleep(0)
    assert handle.responses[0].cancelled


async def test_a_replica_that_works_long_is_waited_for(placements: Placements, monkeypatch: pytest.MonkeyPatch) -> None:
    # Hours pass between two looks, as for a message that is queued behind many.
    clock = SimpleNamespace(now_s=0.0)

    def monotonic() -> float:
        clock.now_s += 600.0
        return float(clock.now_s)

    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=monotonic))
    handle = _Handle(placements, _HANG, "answer", alive=True)
    with pytest.raises(DeadlineExceeded):
        await _carrier(handle, limit_s=20 * 600.0).send("message")
    assert len(handle.responses) == 1
    assert _trusted(placements, handle)


async def test_a_probe_tells_by_the_cause_of_its_failure_whether_the_process_lives() -> None:
    def probed(error: Exception) -> Any:
        async def get_queue_len(*, deadline_s: float) -> int:
            raise error

        return SimpleNamespace(get_queue_len=get_queue_len)

    assert not await answers(probed(_lost()))
    assert await answers(probed(RayTaskError("get_num_ongoing_requests", "traceback", ValueError("its own"))))


async def test_a_caller_that_leaves_cancels_the_call(placements: Placements) -> None:
    handle = _Handle(placements, _HANG)
    task = asyncio.create_task(_carrier(handle).send("message"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert handle.responses
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    assert handle.responses[0].cancelled


async def test_small_calls_are_repeated_too(placements: Placements) -> None:
    handle: Any = _Handle(placements, _lost(), _lost(), "answer")
    assert await call_again(handle, "encode", "message") == "answer"
    handle = _Handle(placements, _lost(), _lost(), _lost())
    with pytest.raises(ReplicaLost):
        await call_again(handle, "encode", "message")


async def test_a_small_call_s_large_answer_comes_through_the_object_store(placements: Placements) -> None:
    handle: Any = _Handle(placements, _status(grpc.StatusCode.RESOURCE_EXHAUSTED), "answer")
    assert await call_again(handle, "encode", "message") == "answer"
    assert handle.by_reference == [False, True]

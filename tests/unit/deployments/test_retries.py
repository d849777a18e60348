"""The carrier of messages over handles that lose replicas, hang or answer, without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from cluster.errors import DeadlineExceeded, PoisonousInput, ReplicaLost
from deployments import retries
from deployments.placements import Placements
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
        self.encode = self

    def remote(self, message: object) -> _Response:
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


def _carrier(handle: Any, limit_s: float | None = 30.0, **options: Any) -> Carrier[str, str]:
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


async def test_a_message_that_two_replicas_died_with_is_isolated(placements: Placements) -> None:
    async def isolate(message: str) -> str:
        return f"{message}, alone"

    handle = _Handle(placements, _lost(), _lost())
    assert await _carrier(handle, isolate=isolate).send("message") == "message, alone"


async def test_work_that_a_broken_replica_gave_back_goes_to_another_and_is_not_held_against_it(
    placements: Placements,
) -> None:
    async def isolate(message: str) -> str:
        raise AssertionError("no process has died")

    back = [ReplicaLost("the encoder has lost a thread") for _ in range(3)]
    handle = _Handle(placements, *back, "answer")
    assert await _carrier(handle, isolate=isolate).send("message") == "answer"
    replicas = [_Replica(f"replica-{number}", True) for number in range(1, 5)]
    assert placements.trusted(replicas) == replicas[3:]


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


async def test_a_replica_that_works_long_is_waited_for(placements: Placements) -> None:
    handle = _Handle(placements, _HANG, "answer", alive=True)
    with pytest.raises(DeadlineExceeded):
        await _carrier(handle, limit_s=0.2).send("message")
    assert len(handle.responses) == 1


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

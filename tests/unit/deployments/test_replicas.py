"""The ingress's knowledge of replicas, with a controller that the test plays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from ray.exceptions import RayError
from ray.serve.schema import ReplicaState

from deployments import replicas
from deployments.replicas import ReplicaWatch


class Controller:
    """Answers with the numbers of running replicas, or not at all."""

    def __init__(self) -> None:
        self.running = {"Ingress": 1, "Tokenizer": 2, "Encoder-e": 0}
        self.status_of = dict.fromkeys(self.running, "HEALTHY")
        self.questions = 0
        self.failure: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()

    def status(self) -> Any:
        self.questions += 1
        assert self.answers.wait(30)
        if self.failure is not None:
            raise self.failure
        deployments = {
            name: SimpleNamespace(
                replica_states={ReplicaState.RUNNING: count, ReplicaState.STARTING: 1}, status=self.status_of[name]
            )
            for name, count in self.running.items()
        }
        return SimpleNamespace(applications={"app": SimpleNamespace(deployments=deployments)})


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    made = Controller()
    monkeypatch.setattr(serve, "status", made.status)
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(app_name="app"))
    # Only the test asks.
    monkeypatch.setattr(replicas, "REFRESH_S", 1000.0)
    monkeypatch.setattr(replicas, "_STARTING_REFRESH_S", 1000.0)
    return made


@pytest.fixture
async def watch(controller: Controller) -> AsyncIterator[ReplicaWatch]:
    made = ReplicaWatch()
    await made.start()
    yield made
    made.stop()
    controller.answers.set()


async def test_a_deployment_that_has_never_run_takes_no_work(watch: ReplicaWatch, controller: Controller) -> None:
    assert await watch.not_running() == ["Encoder-e"]
    assert watch.can_take_work("Encoder-e") == 0
    assert watch.can_take_work("Tokenizer") == 2
    controller.running["Encoder-e"] = 3
    assert await watch.not_running() == []
    assert watch.can_take_work("Encoder-e") == 3


async def test_one_that_was_lost_is_sent_work_again_since_it_comes_back(
    watch: ReplicaWatch, controller: Controller
) -> None:
    controller.running["Tokenizer"] = 0
    assert await watch.not_running() == ["Encoder-e", "Tokenizer"]
    assert watch.can_take_work("Tokenizer") == 1


async def test_one_that_sleeps_is_not_missed_and_is_sent_the_work_that_wakes_it(
    watch: ReplicaWatch, controller: Controller
) -> None:
    controller.status_of["Encoder-e"] = "UPSCALING"
    assert await watch.not_running() == []
    assert watch.can_take_work("Encoder-e") == 1


async def test_a_controller_that_does_not_answer_leaves_what_was_known(
    watch: ReplicaWatch, controller: Controller
) -> None:
    controller.failure = RayError("it restarts")
    assert await watch.not_running() == ["Encoder-e"]
    assert watch.running("Tokenizer") == 2


async def test_a_controller_that_hangs_does_not_hang_the_health_nor_take_all_threads(
    watch: ReplicaWatch, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_ANSWER_S", 0.01)
    controller.answers.clear()
    asked = controller.questions
    answers = await asyncio.wait_for(asyncio.gather(*(watch.not_running() for _ in range(50))), 20)
    assert answers == [["Encoder-e"]] * 50
    assert controller.questions == asked + 1


async def test_an_error_that_nobody_foresaw_does_not_end_the_refreshing(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "REFRESH_S", 0.001)
    monkeypatch.setattr(replicas, "_STARTING_REFRESH_S", 0.001)
    watch = ReplicaWatch()
    await watch.start()
    try:
        controller.failure = KeyError("a field that Serve has renamed")
        asked = controller.questions
        await _until(lambda: controller.questions >= asked + 3)
        controller.running["Encoder-e"] = 4
        controller.failure = None
        await _until(lambda: watch.running("Encoder-e") == 4)
    finally:
        watch.stop()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.to_thread(lambda: None)

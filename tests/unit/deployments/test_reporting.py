"""What a replica measures for autoscaling, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
from ray.serve.exceptions import RayServeException

from cluster.batching.reports import EncoderState
from cluster.live import EncoderSettings
from cluster.types import Backlog
from deployments import reporting
from deployments.autoscaling import BACKLOG, REPORTED
from deployments.reporting import BacklogReporter, BusyMeter, EncoderReport
from tests.unit.batching.test_load import Clock

REST = EncoderState(pending_tokens=0, busy_s=0.0, tokens_per_s=None, has_measured=False, backlogs=[])


class Encoder:
    """An encoder whose state the test sets."""

    def __init__(self, **state: Any) -> None:
        self.state = replace(REST, **state)
        self.clock = Clock()
        self.report = EncoderReport(lambda: self.state, self.clock)


def test_the_busy_share_is_of_the_time_since_the_last_question() -> None:
    clock = Clock()
    busy = 0.0
    meter = BusyMeter(lambda: busy, clock)
    clock.now_s += 4.0
    busy += 1.0
    assert meter.share() == 0.25
    clock.now_s += 1.0
    assert meter.share() == 0.0


def test_an_encoder_reports_its_work_and_its_busy_share() -> None:
    encoder = Encoder(tokens_per_s=1000.0, has_measured=True)
    encoder.clock.now_s += 4.0
    encoder.state = replace(encoder.state, pending_tokens=7, busy_s=3.0)
    measures = encoder.report.measures()
    assert (measures["pending_tokens"], measures["busy_share"], measures["tokens_per_s"]) == (7.0, 0.75, 1000.0)


def test_every_ingress_that_was_heard_of_is_reported_with_the_time_of_its_word() -> None:
    measures = Encoder(backlogs=[Backlog("a", 500, 33.0), Backlog("b", 0, 4.0)]).report.measures()
    assert (measures[BACKLOG + "a"], measures[REPORTED + "a"]) == (500.0, 33.0)
    assert (measures[BACKLOG + "b"], measures[REPORTED + "b"]) == (0.0, 4.0)


def test_speed_is_measured_before_given_before_calibrated() -> None:
    encoder = Encoder()
    assert encoder.report.measures()["tokens_per_s"] == 0.0
    encoder.state = replace(REST, tokens_per_s=3000.0)
    assert encoder.report.measures()["tokens_per_s"] == 3000.0
    assert encoder.report.measures()["has_measured"] == 0.0
    encoder.report.settings = EncoderSettings(tokens_per_s=100.0)
    assert encoder.report.measures()["tokens_per_s"] == 100.0
    encoder.state = replace(REST, tokens_per_s=2500.0, has_measured=True)
    assert encoder.report.measures()["tokens_per_s"] == 2500.0
    assert encoder.report.measures()["has_measured"] == 1.0


class Handle:
    """The handle of an encoder that notes what it is told, once it has lost the replicas that it is to lose."""

    def __init__(self, *losses: BaseException) -> None:
        self.heard: asyncio.Queue[Backlog] = asyncio.Queue()
        self.hear = self
        self._losses = list(losses)

    async def remote(self, backlog: Backlog) -> None:
        if self._losses:
            raise self._losses.pop(0)
        await self.heard.put(backlog)


async def test_an_ingress_tells_of_its_work_and_once_that_there_is_none_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "REPORT_S", 0.001)
    busy, idle = Handle(), Handle()
    tokens = {"busy": 40, "idle": 0}
    asked = asyncio.Event()

    def backlog(name: str) -> Backlog:
        asked.set()
        return Backlog("ingress", tokens[name], 1.0)

    reporter = BacklogReporter({"busy": busy, "idle": idle}, backlog)
    try:
        assert (await busy.heard.get()).tokens == 40
        tokens["busy"] = 0
        while (await busy.heard.get()).tokens:
            pass
        for _ in range(3):
            asked.clear()
            await asked.wait()
        assert busy.heard.empty()
        assert idle.heard.empty()
    finally:
        reporter.stop()


async def test_a_replica_that_dies_of_any_cause_does_not_end_the_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "REPORT_S", 0.001)
    closed = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
    encoder = Handle(closed, asyncio.CancelledError(), RayServeException("gone"))
    reporter = BacklogReporter({"e": encoder}, lambda name: Backlog("ingress", 40, 1.0))
    try:
        assert (await asyncio.wait_for(encoder.heard.get(), 30)).tokens == 40
    finally:
        reporter.stop()


async def test_a_backlog_that_cannot_be_read_does_not_end_the_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "REPORT_S", 0.001)
    encoder, surprises = Handle(), [KeyError("e"), MemoryError()]

    def backlog(name: str) -> Backlog:
        if surprises:
            raise surprises.pop()
        return Backlog("ingress", 40, 1.0)

    reporter = BacklogReporter({"e": encoder}, backlog)
    try:
        assert (await asyncio.wait_for(encoder.heard.get(), 30)).tokens == 40
    finally:
        reporter.stop()

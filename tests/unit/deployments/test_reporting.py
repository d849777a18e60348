"""What a replica measures for autoscaling, with a clock that the test moves."""

from __future__ import annotations

import pytest

from cluster.batching.load import EngineLoad
from cluster.live import EncoderSettings
from deployments.autoscaling import REPORTED, WAITING
from deployments.reporting import Backlog, BusyMeter, EncoderReport
from tests.unit.batching.test_load import Clock


def work(load: EngineLoad, clock: Clock, tokens: int, seconds: float) -> None:
    with load.call(tokens):
        clock.now_s += seconds


def test_the_busy_share_is_of_the_time_since_the_last_question() -> None:
    clock = Clock()
    busy = 0.0
    meter = BusyMeter(lambda: busy, clock)
    clock.now_s += 4.0
    busy += 1.0
    assert meter.share() == 0.25
    clock.now_s += 1.0
    assert meter.share() == 0.0


def test_speed_is_measured_over_busy_time_alone() -> None:
    clock = Clock()
    load = EngineLoad(256, clock=clock)
    report = EncoderReport(load, lambda: 7, clock=clock)
    assert report.measures()["tokens_per_s"] == 0.0
    work(load, clock, 2000, 2.0)
    clock.now_s += 1000.0
    measures = report.measures()
    assert measures["tokens_per_s"] == pytest.approx(1000.0)
    assert measures["pending_tokens"] == 7.0


def test_a_change_of_speed_replaces_what_was_known() -> None:
    clock = Clock()
    load = EngineLoad(256, clock=clock)
    report = EncoderReport(load, lambda: 0, clock=clock)
    for rate in (1000, 250):
        for _ in range(60):
            work(load, clock, rate, 1.0)
            report.tokens_per_s()
    assert report.tokens_per_s() == pytest.approx(250.0, rel=0.5)


def test_speed_given_in_the_settings_counts_until_work_outweighs_it() -> None:
    clock = Clock()
    load = EngineLoad(256, clock=clock)
    report = EncoderReport(load, lambda: 0, clock=clock)
    report.settings = EncoderSettings(tokens_per_s=5000.0)
    assert report.tokens_per_s() == 5000.0
    work(load, clock, 9000, 9.0)
    assert report.tokens_per_s() == pytest.approx(1400.0)


def test_an_ingress_that_has_gone_silent_is_forgotten() -> None:
    clock = Clock()
    report = EncoderReport(EngineLoad(256, clock=clock), lambda: 0, clock=clock)
    report.heard(Backlog("a", 500, 33.0))
    measures = report.measures()
    assert measures[WAITING + "a"] == 500.0
    assert measures[REPORTED + "a"] == 33.0
    clock.now_s += 60.0
    assert WAITING + "a" not in report.measures()


def test_the_calibration_counts_before_any_work_and_settings_before_the_calibration() -> None:
    clock = Clock()
    report = EncoderReport(EngineLoad(256, clock=clock), lambda: 0, 3000.0, clock)
    assert report.tokens_per_s() == 3000.0
    report.settings = EncoderSettings(tokens_per_s=100.0)
    assert report.tokens_per_s() == 100.0

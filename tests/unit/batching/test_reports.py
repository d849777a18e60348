from __future__ import annotations

import pytest

from cluster.batching.reports import Backlogs, Throughput


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_speed_is_measured_while_work_waits() -> None:
    clock = _Clock()
    throughput = Throughput(clock=clock)
    for _ in range(50):
        throughput.add(200, work_waits=True)
        clock.now_s += 0.1
    assert throughput.tokens_per_s == pytest.approx(2_000)


def test_lone_work_says_nothing_of_the_speed() -> None:
    clock = _Clock()
    throughput = Throughput(500.0, clock)
    for _ in range(50):
        throughput.add(1, work_waits=False)
        clock.now_s += 1.0
    assert throughput.tokens_per_s == 500.0


def test_speed_follows_a_change() -> None:
    clock = _Clock()
    throughput = Throughput(500.0, clock)
    for _ in range(100):
        throughput.add(100, work_waits=True)
        clock.now_s += 0.05
    assert throughput.tokens_per_s == pytest.approx(2_000, rel=0.01)


def test_an_ingress_learns_of_the_others_only() -> None:
    backlogs = Backlogs(_Clock())
    backlogs.note("one", 10)
    backlogs.note("two", 20)
    backlogs.note("two", 25)
    assert backlogs.elsewhere("one") == 25
    assert backlogs.elsewhere("two") == 10
    assert backlogs.total == 35


def test_an_ingress_that_has_gone_quiet_is_forgotten() -> None:
    clock = _Clock()
    backlogs = Backlogs(clock)
    backlogs.note("one", 10)
    clock.now_s += 60.0
    assert backlogs.elsewhere("two") == 0

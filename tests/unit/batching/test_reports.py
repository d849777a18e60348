from __future__ import annotations

import pytest

from cluster.batching.reports import Backlogs, Throughput
from cluster.types import Backlog


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


def test_a_speed_given_at_the_start_is_not_a_measured_one() -> None:
    clock = _Clock()
    throughput = Throughput(500.0, clock)
    assert not throughput.has_measured
    for _ in range(2):
        throughput.add(100, work_waits=True)
        clock.now_s += 0.05
    assert throughput.has_measured


def test_an_ingress_learns_of_the_others_only() -> None:
    backlogs = Backlogs(_Clock())
    for backlog in (Backlog("one", 10, 1.0), Backlog("two", 20, 1.0), Backlog("two", 25, 2.0)):
        backlogs.note(backlog)
    assert backlogs.elsewhere(Backlog("one", 1, 9.0)) == 25
    assert backlogs.elsewhere(Backlog("two", 1, 9.0)) == 10
    assert backlogs.elsewhere(None) == 35


def test_a_word_that_was_overtaken_by_a_later_one_is_passed_over() -> None:
    backlogs = Backlogs(_Clock())
    backlogs.note(Backlog("one", 0, 5.0))
    backlogs.note(Backlog("one", 700, 4.0))
    assert backlogs.current() == [Backlog("one", 0, 5.0)]


def test_an_ingress_that_has_gone_quiet_is_forgotten() -> None:
    clock = _Clock()
    backlogs = Backlogs(clock)
    backlogs.note(Backlog("one", 10, 1.0))
    clock.now_s += 60.0
    assert backlogs.current() == []
    assert backlogs.elsewhere(None) == 0

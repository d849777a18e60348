"""Measures of an engine's work, with a clock that the test moves."""

from __future__ import annotations

import pytest

from cluster.batching.load import EngineLoad


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_busy_time_includes_the_call_that_still_runs() -> None:
    clock = Clock()
    load = EngineLoad(256, clock=clock)
    with load.call(128):
        clock.now_s += 2.0
        assert load.busy_s == 2.0
        assert load.running == [(2.0, 128)]
    clock.now_s += 5.0
    assert load.busy_s == 2.0
    assert load.running == []


def test_an_engine_with_two_slots_is_half_busy_with_one_call() -> None:
    clock = Clock()
    load = EngineLoad(256, slots=2, clock=clock)
    with load.call(10):
        clock.now_s += 4.0
        assert load.busy_s == 2.0
        with load.call(10):
            clock.now_s += 1.0
        assert load.busy_s == 3.0
        assert load.running == [(5.0, 10)]


def test_a_call_that_fails_is_over() -> None:
    load = EngineLoad(256)
    with pytest.raises(RuntimeError), load.call(10):
        raise RuntimeError
    assert load.running == []

"""The step of load that docs/operations.md shows, second by second, on replicas that start without a speed."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.autoscaling import TokenPolicy

_SPEED = 1000.0
_STEP_S = 50
_LOAD = 4 * _SPEED
_START_S = 12
_TARGET_BUSY_SHARE = 0.8


def _series(values: list[float]) -> dict[int, list[Any]]:
    return {replica: [SimpleNamespace(value=value)] for replica, value in enumerate(values)}


def _most_wanted(target_wait_s: float, measured_after_s: int) -> int:
    """The most replicas that the policy asks for, when nothing but the policy bounds them.

    Args:
        measured_after_s: how long a replica works before it knows its speed.
    """
    running_since, starting = [0], list[int]()
    waiting = most = 0.0
    for second in range(2 * _STEP_S):
        running_since += [at_s for at_s in starting if at_s <= second]
        starting = [at_s for at_s in starting if at_s > second]
        running = len(running_since)
        waiting += _LOAD if second < _STEP_S else 0.0
        done = min(waiting, running * _SPEED)
        waiting -= done
        knows = [second - since_s >= measured_after_s for since_s in running_since]
        measures = {
            "pending_tokens": _series([waiting / running] * running),
            "tokens_per_s": _series([_SPEED if known else 0.0 for known in knows]),
            "has_measured": _series([float(known) for known in knows]),
            "busy_share": _series([done / (running * _SPEED)] * running),
            "target_wait_s": _series([target_wait_s] * running),
            "target_busy_share": _series([_TARGET_BUSY_SHARE] * running),
        }
        wanted, _ = TokenPolicy()(SimpleNamespace(raw_metrics=measures, target_num_replicas=running))
        more = math.ceil(wanted) - running - len(starting)
        starting += [second + _START_S] * max(0, more)
        most = max(most, wanted)
    return math.ceil(most)


@pytest.mark.parametrize("target_wait_s", [2.0, 10.0])
def test_replicas_that_have_not_measured_themselves_do_not_run_a_step_to_the_maximum(target_wait_s: float) -> None:
    known = _most_wanted(target_wait_s, measured_after_s=0)
    unknown = _most_wanted(target_wait_s, measured_after_s=3)
    # The first replica learns its speed three seconds later, and what has come by then waits longer.
    assert unknown <= known + math.ceil(3 * _LOAD / (_SPEED * target_wait_s))

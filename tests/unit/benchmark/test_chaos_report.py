"""What a row of ``make chaos`` calls held, and how the table says so."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.load import Outcome
from tests.chaos.report import Seen, failures_s, table


def _outcome(*answers: tuple[int, float], wrong: int = 0) -> Outcome:
    """Answers by status and the second at which they came, each after 0.1 s."""
    outcome = Outcome(statuses=Counter(status for status, _ in answers), wrong=wrong)
    for status, at_s in answers:
        outcome.seconds.setdefault(status, []).append(0.1)
        outcome.finished_s.setdefault(status, []).append(at_s)
    return outcome


def _judged(outcome: Outcome) -> Seen:
    seen = Seen()
    seen.add(outcome)
    seen.demand_all_answered(outcome)
    return seen


def test_answers_of_200_that_are_right_are_held() -> None:
    assert _judged(_outcome((200, 1.0), (200, 2.0))).faults == []


@pytest.mark.parametrize(
    "outcome",
    [_outcome((200, 1.0), (503, 2.0)), _outcome((200, 1.0), (0, 2.0)), _outcome((200, 1.0), wrong=1), _outcome()],
    ids=["an error", "a broken connection", "a wrong answer", "no answer"],
)
def test_anything_else_is_not(outcome: Outcome) -> None:
    assert _judged(outcome).faults


def test_failures_that_lie_close_together_are_one_burst() -> None:
    outcome = _outcome((200, 0.5), (0, 1.0), (503, 2.5), (0, 9.0))
    assert failures_s(outcome) == [[1.0, 2.5], [9.0]]


@pytest.mark.parametrize(("faults", "held"), [(1, False), (2, True)])
def test_each_fault_is_allowed_one_burst(faults: int, held: bool) -> None:
    seen = Seen()
    seen.demand_brief_failures(_outcome((0, 1.0), (503, 2.5), (0, 9.0)), faults)
    assert (not seen.faults) is held


def test_a_burst_of_more_than_two_seconds_is_not_held() -> None:
    seen = Seen()
    seen.demand_brief_failures(_outcome((0, 1.0), (0, 2.5), (0, 4.0)))
    assert seen.faults


def test_the_table_tells_what_was_not_held() -> None:
    good, bad = _judged(_outcome((200, 1.0))), _judged(_outcome((200, 1.0), (503, 2.0)))
    bad = Seen.of_json(bad.as_json())
    *_, first, second = table([("one", "fused", 3.2, good), ("two", "split", 4.0, bad)]).splitlines()
    assert first == "| one | fused | 1 | 200: 1 | 0 | 100 | 0.10 |  | yes | 3 |"
    assert second == "| two | split | 2 | 200: 1, 503: 1 | 0 | 100 | 0.10 |  | NO | 4 |"

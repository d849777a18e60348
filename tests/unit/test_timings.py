from __future__ import annotations

import numpy as np
import pytest

from cluster.timings import covered_s, timings

PARTS = ("tokenize", "queue", "encode", "pool")


def _spans(*spans: tuple[float, float]) -> np.ndarray:
    return np.asarray(spans, dtype=np.float64).reshape(-1, 2)


@pytest.mark.parametrize(
    ("spans", "expected_s"),
    [
        ([], 0.0),
        ([(1.0, 3.0)], 2.0),
        ([(1.0, 3.0), (2.0, 4.0), (1.5, 2.5)], 3.0),
        ([(5.0, 6.0), (1.0, 2.0)], 2.0),
        ([(-5.0, 0.5)], 0.5),
        ([(9.0, 50.0)], 1.0),
        ([(-5.0, -4.0), (11.0, 12.0)], 0.0),
        ([(float("nan"), float("nan")), (1.0, 2.0)], 1.0),
    ],
)
def test_time_is_covered_once_and_only_within_the_limits(spans: list[tuple[float, float]], expected_s: float) -> None:
    assert covered_s(spans, (0.0, 10.0)) == pytest.approx(expected_s)


def test_a_request_on_four_slots_was_encoded_for_as_long_as_any_of_them_worked() -> None:
    slots = _spans((1.0, 2.0), (1.0, 2.0), (1.5, 2.5), (3.0, 3.5))
    found = timings((0.0, 5.0), (0.25, 0.75), [slots], [(4.0, 4.5)])
    assert found == pytest.approx({"tokenize": 0.5, "queue": 2.0, "encode": 2.0, "pool": 0.5, "total": 5.0})


def test_what_was_computed_before_the_request_came_is_none_of_its_time() -> None:
    found = timings((10.0, 12.0), (10.0, 10.5), [_spans((3.0, 4.0), (9.0, 11.0))], [])
    assert found == pytest.approx({"tokenize": 0.5, "queue": 1.0, "encode": 0.5, "pool": 0.0, "total": 2.0})


def test_scoring_beside_an_engine_call_counts_as_encoding_alone() -> None:
    found = timings((0.0, 4.0), (0.0, 0.0), [_spans((0.0, 2.0))], [(1.0, 3.0)])
    assert found == pytest.approx({"tokenize": 0.0, "queue": 1.0, "encode": 2.0, "pool": 1.0, "total": 4.0})


def test_former_attempts_count_as_waiting() -> None:
    found = timings((0.0, 9.0), (7.0, 7.5), [_spans((8.0, 8.5))], [(8.5, 9.0)])
    assert found["queue"] == pytest.approx(7.5)


@pytest.mark.parametrize("seed", range(200))
def test_parts_are_never_negative_and_never_more_than_the_whole(seed: int) -> None:
    random = np.random.default_rng(seed)
    began_s = float(random.uniform(0, 1e6))
    marks = began_s + np.sort(random.uniform(0, 10.0 ** random.integers(-5, 2), 4))
    whole, tokenized = (float(marks[0]), float(marks[3])), (float(marks[1]), float(marks[2]))
    groups = []
    for _ in range(int(random.integers(0, 5))):
        spans = np.sort(random.uniform(marks[0] - 1, marks[3] + 1, (int(random.integers(1, 30)), 2)), axis=1)
        spans[random.random(len(spans)) < 0.2] = np.nan
        groups.append(spans)
    pooled = [tuple(np.sort(random.uniform(*whole, 2)).tolist()) for _ in range(int(random.integers(0, 4)))]
    found = timings(whole, tokenized, groups, pooled)
    assert all(found[part] >= 0 for part in PARTS)
    assert sum(found[part] for part in PARTS) == pytest.approx(found["total"], rel=1e-9, abs=1e-9)

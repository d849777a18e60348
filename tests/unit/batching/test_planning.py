from __future__ import annotations

import numpy as np
import pytest

from cluster.batching.planning import MicroBatchSizes, plan_micro_batches, split_by_tokens


def _lengths(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


@pytest.mark.parametrize("seed", range(20))
def test_every_sequence_is_planned_once_within_budget(seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 300, size=int(random.integers(1, 200))).astype(np.int64)
    plan = plan_micro_batches(lengths, 256, 16)
    assert sorted(index for micro_batch in plan for index in micro_batch) == list(range(len(lengths)))
    for micro_batch in plan:
        assert len(micro_batch) <= 16
        total = int(lengths[micro_batch].sum())
        assert total <= 256 or len(micro_batch) == 1


def test_the_plan_is_near_the_least_number_of_micro_batches() -> None:
    lengths = np.random.default_rng(0).integers(1, 128, size=500).astype(np.int64)
    least = -(-int(lengths.sum()) // 256)
    assert len(plan_micro_batches(lengths, 256, 256)) <= least * 11 / 9 + 1


def test_equal_lengths_give_an_equal_plan() -> None:
    lengths = _lengths(3, 9, 9, 1)
    assert plan_micro_batches(lengths, 10, 4) == plan_micro_batches(lengths.copy(), 10, 4)


def test_ranges_are_cut_by_tokens_and_items() -> None:
    assert split_by_tokens(_lengths(5, 5, 5, 20, 1, 1, 1), 10, 2) == [(0, 2), (2, 3), (3, 4), (4, 6), (6, 7)]
    assert split_by_tokens(_lengths(), 10, 2) == []


def test_the_fastest_size_that_holds_the_longest_sequence_is_chosen() -> None:
    sizes = MicroBatchSizes(((64, 900.0), (128, 1000.0), (256, 800.0)))
    assert [sizes.best(_lengths(length)) for length in (128, 129, 256, 257)] == [128, 256, 256, 257]
    assert sizes.best(_lengths(*[8] * 50)) == 128
    assert sizes.largest == 256
    assert sizes.tokens_per_s == 1000.0


def test_of_sizes_about_as_fast_the_smallest_is_chosen() -> None:
    sizes = MicroBatchSizes(((64, 960.0), (128, 980.0), (256, 1000.0), (512, 995.0)))
    assert sizes.best(_lengths(*[8] * 100)) == 128
    assert sizes.best(_lengths(257, *[8] * 100)) == 512


def test_a_size_counts_for_what_fills_it() -> None:
    sizes = MicroBatchSizes(((32, 500.0), (64, 800.0), (96, 990.0), (128, 1000.0), (256, 1000.0)))
    assert sizes.best(_lengths(*[32] * 20)) == 96
    assert sizes.best(_lengths(*[60] * 20)) == 128


def test_a_fixed_size_claims_no_speed() -> None:
    sizes = MicroBatchSizes.fixed(100)
    assert (sizes.best(_lengths(7)), sizes.best(_lengths(150)), sizes.tokens_per_s) == (100, 150, None)

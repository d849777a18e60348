from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cluster.evaluation import bootstrap
from cluster.evaluation.bootstrap import Metric, mean_of, measure
from cluster.types import PoolingType

MEAN, CLS = PoolingType.MEAN, PoolingType.CLS


def metric_of(mean: np.ndarray, cls: np.ndarray, seed: int = 0, resamples: int = 2000) -> Metric:
    return measure("figure", {MEAN: mean_of(mean), CLS: mean_of(cls)}, len(mean), resamples, seed)


def test_an_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).normal(size=300)
    ours = metric_of(values, values).estimates[MEAN]
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=2000, rng=2).confidence_interval
    assert ours.value == values.mean()
    assert abs(ours.low - theirs.low) < 0.01
    assert abs(ours.high - theirs.high) < 0.01


def test_the_difference_of_equal_figures_is_noise() -> None:
    generator = np.random.default_rng(3)
    metric = metric_of(generator.normal(size=200), generator.normal(size=200))
    difference = metric.difference(MEAN, CLS)
    assert difference.low < 0 < difference.high


def test_resamples_are_paired_so_that_a_small_steady_difference_is_seen() -> None:
    hard = np.random.default_rng(4).normal(size=200)
    metric = metric_of(hard + 0.05, hard)
    assert metric.estimates[CLS].high > metric.estimates[MEAN].low
    assert metric.difference(MEAN, CLS).low > 0.049


def test_more_comparisons_widen_the_interval() -> None:
    generator = np.random.default_rng(5)
    metric = metric_of(generator.normal(size=100), generator.normal(size=100))
    one, many = metric.difference(MEAN, CLS, 1), metric.difference(MEAN, CLS, 5)
    assert many.low < one.low < one.high < many.high


def test_a_seed_gives_the_same_draws_and_another_gives_others() -> None:
    values = np.random.default_rng(6).normal(size=50)
    first, again, other = metric_of(values, -values), metric_of(values, -values), metric_of(values, -values, seed=1)
    assert np.array_equal(first.draws[MEAN], again.draws[MEAN])
    assert not np.array_equal(first.draws[MEAN], other.draws[MEAN])


def test_draws_do_not_depend_on_how_they_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(7).normal(size=40)
    whole = metric_of(values, values, resamples=100).draws[MEAN]
    monkeypatch.setattr(bootstrap, "_CHUNK_INDICES", 7 * 40)
    assert np.array_equal(metric_of(values, values, resamples=100).draws[MEAN], whole)


def test_the_first_of_equals_is_best() -> None:
    values = np.ones(10)
    metric = metric_of(values, values, resamples=100)
    assert metric.best((CLS, MEAN)) is CLS

"""Bootstrap confidence intervals, paired: every pooling type is measured on the same resamples of the validation set.

A difference between two pooling types has a much narrower interval than either figure, since what makes a resample hard is
hard for both. Intervals are percentile intervals (Efron 1979).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.types import Int64, PoolingType

Float64 = NDArray[np.float64]
Statistic = Callable[[Int64], Float64]
"""Rows of item indices, int64 ``[b, n]`` → the figure of each row, float64 ``[b]``."""

CONFIDENCE = 0.95
_CHUNK_INDICES = 2_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of merit, larger is better, of every pooling type.

    Attributes:
        estimates: the figure on the whole set, and its 95 % interval.
        draws: float64 ``[resamples]``; position i is the same resample for every pooling type.
    """

    name: str
    estimates: dict[PoolingType, Interval]
    draws: dict[PoolingType, Float64]

    def best(self, candidates: tuple[PoolingType, ...]) -> PoolingType:
        """Return the candidate with the largest figure, the first of equals."""
        return max(candidates, key=lambda pooling: self.estimates[pooling].value)

    def difference(self, better: PoolingType, other: PoolingType, comparisons: int = 1) -> Interval:
        """Return ``better - other`` with an interval that holds for so many comparisons at once (Bonferroni)."""
        value = self.estimates[better].value - self.estimates[other].value
        return _interval(value, self.draws[better] - self.draws[other], 1 - (1 - CONFIDENCE) / max(1, comparisons))


def measure(name: str, statistics: Mapping[PoolingType, Statistic], items: int, resamples: int, seed: int) -> Metric:
    """Compute a figure of every pooling type on the whole set and on the same ``resamples`` of its ``items``."""
    whole = np.arange(items, dtype=np.int64)[None, :]
    parts: dict[PoolingType, list[Float64]] = {pooling: [] for pooling in statistics}
    for indices in _resamples(items, resamples, seed):
        for pooling, statistic in statistics.items():
            parts[pooling].append(statistic(indices))
    draws = {pooling: np.concatenate(pieces) for pooling, pieces in parts.items()}
    estimates = {
        pooling: _interval(float(statistic(whole)[0]), draws[pooling], CONFIDENCE)
        for pooling, statistic in statistics.items()
    }
    return Metric(name, estimates, draws)


def mean_of(values: Float64) -> Statistic:
    """Return the statistic that averages ``values``, float64 ``[n]``."""
    return lambda indices: np.asarray(values[indices].mean(axis=1), dtype=np.float64)


def _resamples(items: int, resamples: int, seed: int) -> Iterator[Int64]:
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_INDICES // items)
    for begin in range(0, resamples, chunk):
        yield generator.integers(items, size=(min(chunk, resamples - begin), items), dtype=np.int64)


def _interval(value: float, draws: Float64, confidence: float) -> Interval:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))

"""Compares pooling types on a person's validation set: encode once, pool in every way, measure, recommend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cluster.errors import InvalidRequest
from cluster.evaluation.bootstrap import Interval
from cluster.evaluation.data import LabelledTexts, Retrieval, ScoredPairs
from cluster.evaluation.geometry import Geometry, describe_space
from cluster.evaluation.recommendation import Recommendation, known_faults, left_out, recommend
from cluster.evaluation.sources import HiddenStateSource, SourceFacts
from cluster.evaluation.spaces import Spaces, choose_pooling_types, encode_spaces
from cluster.evaluation.tasks import Settings, TaskResult, measure_labels, measure_pairs, measure_retrieval
from cluster.types import PoolingType

_LEAST_RESAMPLES = 100


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """What a person has; at least one of the three."""

    pairs: ScoredPairs | None = None
    labels: LabelledTexts | None = None
    retrieval: Retrieval | None = None

    def texts(self, settings: Settings) -> list[str]:
        """Return all texts with their prompts, repeated ones as often as they occur."""
        texts: list[str] = []
        if self.retrieval is not None:
            texts += [settings.document_prompt + text for text in self.retrieval.documents]
            texts += [settings.query_prompt + text for text in self.retrieval.queries]
        if self.pairs is not None:
            texts += [settings.prompt + text for text in (*self.pairs.first, *self.pairs.second)]
        if self.labels is not None:
            texts += [settings.prompt + text for text in self.labels.texts]
        return texts

    @property
    def skipped(self) -> list[str]:
        """The rows that were left out and why."""
        parts = (self.pairs, self.labels, self.retrieval)
        return [fault for part in parts if part is not None for fault in part.skipped]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that was found.

    Attributes:
        cut_tokens: what was cut from texts that are longer than the model takes.
        left_out: pooling types that were not compared, and why.
    """

    facts: SourceFacts
    settings: Settings
    data: ValidationSet
    spaces: Spaces
    tasks: list[TaskResult]
    geometry: dict[PoolingType, Geometry]
    recommendation: Recommendation
    warnings: list[str]
    left_out: dict[PoolingType, str]
    cut_tokens: int

    @property
    def pooling_types(self) -> tuple[PoolingType, ...]:
        """The pooling types that were compared."""
        return tuple(self.spaces.vectors)


def compare(
    source: HiddenStateSource,
    data: ValidationSet,
    settings: Settings | None = None,
    wanted: Sequence[PoolingType] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare pooling types.

    Args:
        wanted: the pooling types to compare; empty for all that give a vector.
        progress: called with the texts encoded and the texts in all.

    Raises:
        InvalidRequest: there are no data, or too few resamples.
        PoolingUnavailable: the model does not answer one of ``wanted``.
    """
    settings = settings or Settings()
    if settings.resamples < _LEAST_RESAMPLES:
        raise InvalidRequest(
            f"{settings.resamples} resamples give no 95 % interval; use {_LEAST_RESAMPLES} or more", "resamples"
        )
    texts = data.texts(settings)
    if len(set(texts)) < 2:
        raise InvalidRequest("fewer than two different texts to compare; give pairs, labels or a retrieval set")
    pooling_types = choose_pooling_types(source.facts, wanted)
    spaces = encode_spaces(source, texts, pooling_types, progress)
    tasks: list[TaskResult] = []
    if data.retrieval is not None:
        tasks.append(measure_retrieval(spaces, data.retrieval, settings))
    if data.pairs is not None:
        tasks.append(measure_pairs(spaces, data.pairs, settings))
    if data.labels is not None:
        tasks.append(measure_labels(spaces, data.labels, settings))
    positives = next((task.positives for task in tasks if len(task.positives)), np.zeros((0, 2), dtype=np.int64))
    recommendation = recommend(source.facts, pooling_types, tasks)
    return Comparison(
        facts=source.facts,
        settings=settings,
        data=data,
        spaces=spaces,
        tasks=tasks,
        geometry={p: describe_space(space, positives, settings.seed) for p, space in spaces.vectors.items()},
        recommendation=recommendation,
        warnings=[*_warnings_of_data(source), *known_faults(source.facts, recommendation)],
        left_out=left_out(source.facts, pooling_types),
        cut_tokens=source.cut_tokens,
    )


def _warnings_of_data(source: HiddenStateSource) -> list[str]:
    if not source.cut_tokens:
        return []
    return [f"{source.cut_tokens} token(s) were cut from the ends of texts that are longer than the model takes."]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return everything but the vectors, ready for ``json.dumps``; figures unrounded."""
    facts = asdict(comparison.facts)
    return {
        "model": facts,
        "texts": len(comparison.spaces.index),
        "tokens": comparison.spaces.tokens,
        "settings": asdict(comparison.settings),
        "tasks": [
            {
                "kind": task.kind,
                "data": task.size,
                "deciding_metric": task.deciding.name,
                "metrics": {
                    metric.name: {pooling: _interval(estimate) for pooling, estimate in metric.estimates.items()}
                    for metric in task.metrics
                },
            }
            for task in comparison.tasks
        ],
        "geometry": {pooling: asdict(geometry) for pooling, geometry in comparison.geometry.items()},
        "recommendation": {
            "pooling": comparison.recommendation.pooling,
            "reason": comparison.recommendation.reason,
            "tied": comparison.recommendation.tied,
            "trained_pooling": comparison.facts.trained_pooling,
        },
        "verdicts": [
            {
                "task": verdict.task,
                "metric": verdict.metric,
                "best": verdict.best,
                "other": verdict.other,
                "difference": _interval(verdict.difference),
                "noise": verdict.noise,
            }
            for verdict in comparison.recommendation.verdicts
        ],
        "warnings": comparison.warnings,
        "left_out": comparison.left_out,
        "cut_tokens": comparison.cut_tokens,
        "skipped_rows": comparison.data.skipped,
    }


def _interval(interval: Interval) -> dict[str, float | None]:
    # JSON has no NaN.
    return {name: number if math.isfinite(number) else None for name, number in asdict(interval).items()}

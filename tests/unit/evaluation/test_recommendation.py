from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cluster.evaluation.bootstrap import mean_of, measure
from cluster.evaluation.recommendation import known_faults, left_out, recommend
from cluster.evaluation.sources import SourceFacts
from cluster.evaluation.tasks import TaskResult
from cluster.types import PoolingType

MEAN, CLS, LAST, WEIGHTED = PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST, PoolingType.WEIGHTED
FACTS = SourceFacts(
    name="model",
    architecture="bert",
    pooling_types=(PoolingType.NONE, MEAN, CLS, LAST, WEIGHTED),
    refused={PoolingType.RANK: "it has no classification head"},
    trained_pooling=MEAN,
    causal=False,
    ends_with_token=True,
)


def task(kind: str, **levels: float) -> TaskResult:
    """A task of 200 items in which each pooling type has its level plus the same noise, and a little of its own."""
    generator = np.random.default_rng(0)
    shared = generator.normal(size=200)
    statistics = {
        PoolingType(name): mean_of(shared + level + 0.1 * generator.normal(size=200)) for name, level in levels.items()
    }
    metric = measure("figure", statistics, 200, 500, 0)
    return TaskResult(kind, "200 items", [metric], np.zeros((0, 2), dtype=np.int64))


def test_a_real_difference_decides_against_what_the_model_was_trained_for() -> None:
    found = recommend(FACTS, (MEAN, CLS, LAST), [task("pairs", mean=0.0, cls=0.0, last=0.5)])
    assert found.pooling is LAST
    assert found.tied == ()
    assert "The GGUF says the model was trained for mean." in found.reason
    assert any("check that prompts" in warning for warning in known_faults(FACTS, found))


def test_noise_is_called_noise_and_training_decides() -> None:
    found = recommend(FACTS, (MEAN, WEIGHTED), [task("pairs", mean=0.0, weighted=0.0)])
    assert found.pooling is MEAN
    assert found.tied == (WEIGHTED,)
    assert [verdict.noise for verdict in found.verdicts] == [True]
    assert "The difference from weighted is noise on these data." in found.reason
    assert not any("check that prompts" in warning for warning in known_faults(FACTS, found))


def test_the_best_wins_where_the_model_does_not_say_what_it_was_trained_for() -> None:
    facts = replace(FACTS, trained_pooling=None)
    found = recommend(facts, (MEAN, CLS), [task("pairs", mean=0.0, cls=0.3)])
    assert found.pooling is CLS
    assert "does not say" in found.reason


def test_a_second_task_decides_what_the_first_cannot() -> None:
    tasks = [task("retrieval", mean=0.0, last=0.0, cls=-1.0), task("labels", mean=0.0, last=0.4, cls=9.0)]
    found = recommend(FACTS, (MEAN, CLS, LAST), tasks)
    assert found.pooling is LAST
    assert {(v.task, v.best) for v in found.verdicts} >= {("labels", CLS)}


def test_a_single_pooling_type_is_recommended_without_a_verdict() -> None:
    found = recommend(FACTS, (MEAN,), [task("pairs", mean=0.0)])
    assert (found.pooling, found.verdicts) == (MEAN, [])


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"causal": True, "refused": {CLS: "it is causal"}}, "Do not use cls: it is causal."),
        ({}, "Do not use rank: it has no classification head."),
        ({"ends_with_token": False}, "Do not use last as things are"),
        ({"trained_pooling": PoolingType.RANK, "refused": {}}, "was trained to score pairs"),
    ],
)
def test_a_choice_that_is_known_to_be_wrong_is_warned_of(change: dict[str, object], warning: str) -> None:
    faults = known_faults(replace(FACTS, **change), None)  # type: ignore[arg-type]
    assert any(warning in fault for fault in faults)


def test_nothing_is_warned_of_where_the_source_does_not_say() -> None:
    assert known_faults(replace(FACTS, refused={}, causal=None, ends_with_token=None, trained_pooling=None), None) == []


def test_every_type_that_was_not_compared_has_a_reason() -> None:
    reasons = left_out(FACTS, (MEAN, LAST))
    assert set(reasons) == {PoolingType.NONE, CLS, PoolingType.RANK, WEIGHTED}
    assert reasons[PoolingType.RANK] == "it has no classification head"

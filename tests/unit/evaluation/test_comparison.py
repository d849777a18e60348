from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cluster.errors import InvalidRequest
from cluster.evaluation.comparison import Comparison, ValidationSet, compare, to_json
from cluster.evaluation.data import LabelledTexts, Retrieval, ScoredPairs
from cluster.evaluation.local import LocalModel
from cluster.evaluation.spaces import VECTOR_POOLING_TYPES
from cluster.evaluation.tasks import Settings
from cluster.types import PoolingType


def test_every_task_measures_every_pooling_type(comparison: Comparison) -> None:
    measured = {task.kind: [metric.name for metric in task.metrics] for task in comparison.tasks}
    assert measured == {
        "retrieval": ["ndcg@10", "mrr", "recall@10"],
        "pairs": ["spearman", "pearson"],
        "labels": ["5-nn accuracy", "silhouette", "v-measure"],
    }
    for task in comparison.tasks:
        for metric in task.metrics:
            assert tuple(metric.estimates) == VECTOR_POOLING_TYPES
            assert all(one.low <= one.high for one in metric.estimates.values())


def test_the_json_holds_everything_and_no_number_that_json_lacks(comparison: Comparison) -> None:
    read = json.loads(json.dumps(to_json(comparison), allow_nan=False))
    assert read["model"]["name"] == "fake"
    assert set(read["geometry"]) == {"mean", "cls", "last", "weighted"}
    assert read["recommendation"]["pooling"] in read["geometry"]
    assert [task["deciding_metric"] for task in read["tasks"]] == ["ndcg@10", "spearman", "5-nn accuracy"]
    assert set(read["left_out"]) == {"none", "rank"}
    assert len(read["verdicts"]) == 9


def test_the_same_seed_gives_the_same_comparison(pairs: ScoredPairs) -> None:
    settings = Settings(resamples=100, seed=3)
    first, again = (to_json(compare(LocalModel.fake(), ValidationSet(pairs), settings)) for _ in range(2))
    assert first == again


def test_prompts_are_set_before_texts(model: LocalModel, retrieval: Retrieval, pairs: ScoredPairs) -> None:
    settings = Settings(resamples=100, query_prompt="find ", document_prompt="read ", prompt="say ")
    found = compare(model, ValidationSet(pairs=pairs, retrieval=retrieval), settings)
    assert {text.split()[0] for text in found.spaces.index} == {"find", "read", "say"}


def test_only_the_wanted_types_are_compared(model: LocalModel, pairs: ScoredPairs) -> None:
    wanted = [PoolingType.MEAN, PoolingType.LAST]
    found = compare(model, ValidationSet(pairs), Settings(resamples=100), wanted)
    assert found.pooling_types == (PoolingType.MEAN, PoolingType.LAST)
    assert PoolingType.CLS in found.left_out


def test_a_space_that_puts_all_texts_in_one_place_is_measured(labels: LabelledTexts, pairs: ScoredPairs) -> None:
    # The fake model's first token is the same for every text, as a causal model's would be.
    found = compare(LocalModel.fake(), ValidationSet(pairs, labels), Settings(resamples=100))
    assert found.geometry[PoolingType.CLS].anisotropy == pytest.approx(1.0, abs=1e-6)
    assert found.tasks[0].deciding.estimates[PoolingType.CLS].value == pytest.approx(0.0, abs=1e-9)


def test_cut_texts_are_warned_of(pairs: ScoredPairs) -> None:
    long = replace(pairs, first=["word " * 600, *pairs.first[1:]])
    found = compare(LocalModel.fake(), ValidationSet(long), Settings(resamples=100))
    assert found.cut_tokens == 90
    assert any("90 token(s) were cut" in warning for warning in found.warnings)


def test_nothing_to_measure_on_is_refused(model: LocalModel) -> None:
    with pytest.raises(InvalidRequest, match="fewer than two different texts"):
        compare(model, ValidationSet())
    same = ScoredPairs(["a", "a", "a"], ["a", "a", "a"], np.asarray([1, 2, 3], dtype=np.float32))
    with pytest.raises(InvalidRequest, match="fewer than two different texts"):
        compare(model, ValidationSet(same))


def test_too_few_resamples_are_refused(model: LocalModel, pairs: ScoredPairs) -> None:
    with pytest.raises(InvalidRequest, match="use 100 or more"):
        compare(model, ValidationSet(pairs), Settings(resamples=10))

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import ndcg_score, silhouette_score, v_measure_score

from cluster.evaluation.metrics import (
    cosine_of_pairs,
    pearson,
    rank_documents,
    silhouettes,
    spearman,
    v_measure,
    vote_of_neighbours,
)
from cluster.types import Float32


def unit(rows: np.ndarray) -> Float32:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_cosines_are_those_of_the_rows() -> None:
    vectors = unit(np.asarray([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]))
    cosines = cosine_of_pairs(vectors, np.asarray([0, 0]), np.asarray([1, 2]))
    assert cosines == pytest.approx([0.0, np.sqrt(0.5)], abs=1e-6)


def test_correlations_of_every_resample_agree_with_scipy(generator: np.random.Generator) -> None:
    similarities = generator.normal(size=60)
    scores = np.round(similarities + generator.normal(size=60))
    indices = generator.integers(60, size=(5, 60))
    for ours, theirs in ((spearman, stats.spearmanr), (pearson, stats.pearsonr)):
        expected = [theirs(similarities[row], scores[row]).statistic for row in indices]
        assert ours(similarities, scores)(indices) == pytest.approx(expected, abs=1e-12)


def test_equal_similarities_correlate_with_nothing() -> None:
    indices = np.arange(4)[None, :]
    assert spearman(np.ones(4), np.arange(4.0))(indices).tolist() == [0.0]


def test_ndcg_agrees_with_scikit_learn(generator: np.random.Generator) -> None:
    documents, queries = unit(generator.normal(size=(40, 8))), unit(generator.normal(size=(70, 8)))
    relevance = [{int(d): float(g) for g, d in enumerate(generator.choice(40, 3, replace=False), 1)} for _ in queries]
    grades = np.zeros((70, 40))
    for query, judged in enumerate(relevance):
        grades[query, list(judged)] = list(judged.values())
    ours = rank_documents(documents, queries, relevance, 10)["ndcg@10"]
    assert ours.mean() == pytest.approx(ndcg_score(grades, queries @ documents.T, k=10), abs=1e-9)


def test_mrr_and_recall_of_a_known_ranking() -> None:
    documents = unit(np.asarray([[1.0, 0.0], [1.0, 0.2], [1.0, 0.5], [0.0, 1.0]]))
    judged = rank_documents(documents, unit(np.asarray([[1.0, 0.0]])), [{1: 1.0, 3: 1.0}], 2)
    assert judged["mrr"].tolist() == [0.5]
    assert judged["recall@2"].tolist() == [0.5]


def test_a_corpus_smaller_than_the_depth_is_ranked() -> None:
    documents = unit(np.asarray([[1.0, 0.0], [0.0, 1.0]]))
    judged = rank_documents(documents, documents, [{0: 1.0}, {1: 1.0}], 10)
    assert {name: values.tolist() for name, values in judged.items()} == {
        name: [1.0, 1.0] for name in ("ndcg@10", "mrr", "recall@10")
    }


def test_a_text_has_no_vote_on_itself() -> None:
    vectors = unit(np.asarray([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]))
    assert vote_of_neighbours(vectors, np.asarray([0, 0, 1, 1]), 1).tolist() == [1, 1, 1, 1]
    assert vote_of_neighbours(vectors, np.asarray([0, 1, 0, 1]), 1).tolist() == [0, 0, 0, 0]


def test_the_nearest_label_wins_a_tied_vote() -> None:
    vectors = unit(np.asarray([[1.0, 0.0], [1.0, 0.1], [1.0, 0.5]]))
    assert vote_of_neighbours(vectors, np.asarray([0, 0, 1]), 2)[0] == 1


def test_silhouettes_and_v_measure_agree_with_scikit_learn(generator: np.random.Generator) -> None:
    centres = np.eye(3)
    labels = np.repeat(np.arange(3), 10)
    vectors = unit(centres[labels] + 0.1 * generator.normal(size=(30, 3)))
    assert silhouettes(vectors, labels).mean() == pytest.approx(silhouette_score(vectors, labels, metric="cosine"))
    indices = np.stack([np.arange(30), generator.integers(30, size=30)])
    assert v_measure(vectors, labels, 0)(indices).tolist() == [v_measure_score([0, 1], [1, 0])] * 2


def test_v_measure_of_a_space_that_is_one_point_is_zero() -> None:
    vectors = unit(np.ones((6, 2)))
    assert v_measure(vectors, np.asarray([0, 0, 1, 1, 2, 2]), 0)(np.arange(6)[None, :]) == pytest.approx([0.0])

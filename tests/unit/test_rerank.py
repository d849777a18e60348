from __future__ import annotations

import numpy as np
import pytest

from cluster.config import Activation
from cluster.rerank import best_first, max_sim, max_sim_to_unit_interval, sigmoid, softmax, to_unit_interval
from cluster.types import ScoreType, offsets_of


def _row(*values: float) -> np.ndarray:
    return np.asarray([values], dtype=np.float32)


def test_one_logit_becomes_a_sigmoid() -> None:
    got, score_type = to_unit_interval(_row(0.0), ScoreType.LOGIT)
    assert (got[0, 0], score_type) == (0.5, ScoreType.PROBABILITY)


def test_several_logits_become_a_softmax() -> None:
    got, _ = to_unit_interval(_row(np.log(3.0), 0.0), ScoreType.LOGIT)
    np.testing.assert_allclose(got, _row(0.75, 0.25), rtol=1e-6)


def test_probabilities_of_the_graph_stay_as_they_are() -> None:
    outputs = _row(0.9, 0.1)
    got, score_type = to_unit_interval(outputs, ScoreType.PROBABILITY)
    assert got is outputs
    assert score_type is ScoreType.PROBABILITY


@pytest.mark.parametrize(("tanh", "expected"), [(-1.0, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_a_tanh_is_shifted_and_not_squashed_again(tanh: float, expected: float) -> None:
    got, score_type = to_unit_interval(_row(tanh), ScoreType.TANH)
    assert (got[0, 0], score_type) == (expected, ScoreType.PROBABILITY)


def test_a_shifted_tanh_is_the_sigmoid_of_twice_its_logit() -> None:
    logits = np.linspace(-3, 3, 7, dtype=np.float32)[:, None]
    got, _ = to_unit_interval(np.tanh(logits), ScoreType.TANH)
    np.testing.assert_allclose(got, sigmoid(2 * logits), atol=1e-6)


def test_the_configuration_overrides_the_choice() -> None:
    logits = _row(1.0, 2.0)
    np.testing.assert_array_equal(to_unit_interval(logits, ScoreType.LOGIT, Activation.SIGMOID)[0], sigmoid(logits))
    np.testing.assert_array_equal(
        to_unit_interval(_row(1.0), ScoreType.LOGIT, Activation.SOFTMAX)[0], softmax(_row(1.0))
    )
    raw, score_type = to_unit_interval(logits, ScoreType.LOGIT, Activation.NONE)
    assert raw is logits
    assert score_type is ScoreType.LOGIT


def test_activations_survive_the_largest_logits() -> None:
    np.testing.assert_array_equal(sigmoid(_row(-1e30, 1e30)), _row(0.0, 1.0))
    np.testing.assert_array_equal(softmax(_row(-1e30, 1e30)), _row(0.0, 1.0))


def test_max_sim_is_the_sum_of_each_query_tokens_best_cosine() -> None:
    random = np.random.default_rng(0)
    query = random.normal(size=(5, 12)).astype(np.float32)
    documents = [random.normal(size=(length, 12)).astype(np.float32) for length in (1, 7, 3)]
    got = max_sim(query, np.concatenate(documents), offsets_of([1, 7, 3]))

    def cosines(document: np.ndarray) -> np.ndarray:
        products = query @ document.T
        return products / np.linalg.norm(query, axis=1)[:, None] / np.linalg.norm(document, axis=1)

    np.testing.assert_allclose(got, [cosines(document).max(axis=1).sum() for document in documents], rtol=1e-5)


def test_max_sim_of_a_text_with_itself_is_its_number_of_tokens() -> None:
    rows = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    assert max_sim(rows, rows, offsets_of([6]))[0] == pytest.approx(6, abs=1e-5)


def test_a_vector_of_zeros_is_near_nothing() -> None:
    zeros = np.zeros((1, 4), dtype=np.float32)
    assert max_sim(zeros, np.ones((1, 4), dtype=np.float32), offsets_of([1]))[0] == 0


def test_the_mean_max_sim_is_clipped_at_zero() -> None:
    scores = np.asarray([-1.0, 2.0, 4.0], dtype=np.float32)
    tokens = np.full(3, 4, dtype=np.int32)
    np.testing.assert_array_equal(max_sim_to_unit_interval(scores, tokens), np.asarray([0, 0.5, 1], dtype=np.float32))


@pytest.mark.parametrize(
    ("top_n", "expected"), [(None, [1, 3, 0, 2]), (0, [1, 3, 0, 2]), (2, [1, 3]), (9, [1, 3, 0, 2])]
)
def test_ties_keep_their_order(top_n: int | None, expected: list[int]) -> None:
    scores = np.asarray([0.5, 0.9, 0.5, 0.9], dtype=np.float32)
    assert best_first(scores, top_n).tolist() == expected

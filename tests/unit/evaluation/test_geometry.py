from __future__ import annotations

import numpy as np
import pytest

from cluster.evaluation.geometry import describe_space

NO_PAIRS = np.zeros((0, 2), dtype=np.int64)


def test_the_figures_of_two_opposite_points_are_known() -> None:
    vectors = np.asarray([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    geometry = describe_space(vectors, np.asarray([[0, 1]]), 0)
    assert geometry.alignment == pytest.approx(4.0)
    assert geometry.uniformity == pytest.approx(-8.0)
    assert geometry.anisotropy == pytest.approx(-1.0)


def test_a_single_point_has_neither_spread_nor_direction() -> None:
    vectors = np.tile(np.asarray([[0.6, 0.8]], dtype=np.float32), (5, 1))
    geometry = describe_space(vectors, NO_PAIRS, 0)
    assert geometry.alignment is None
    assert geometry.uniformity == pytest.approx(0.0, abs=1e-6)
    assert geometry.anisotropy == pytest.approx(1.0, abs=1e-6)


def test_an_even_spread_over_the_sphere_is_uniform_and_not_anisotropic() -> None:
    vectors = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    geometry = describe_space(vectors, NO_PAIRS, 0)
    assert geometry.anisotropy == pytest.approx(0.0, abs=0.005)
    assert -4.0 < geometry.uniformity < -3.8


def test_anisotropy_is_the_mean_cosine_of_all_pairs() -> None:
    vectors = np.random.default_rng(1).normal(size=(20, 4)) + 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (vectors @ vectors.T)[np.triu_indices(20, 1)]
    assert describe_space(vectors.astype(np.float32), NO_PAIRS, 0).anisotropy == pytest.approx(cosines.mean(), abs=1e-6)

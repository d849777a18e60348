from __future__ import annotations

import numpy as np

from cluster.evaluation.projection import project


def test_neighbours_stay_neighbours() -> None:
    generator = np.random.default_rng(0)
    centres = np.eye(8)[np.repeat([0, 1], 20)]
    vectors = (centres + 0.05 * generator.normal(size=(40, 8))).astype(np.float32)
    points = project(vectors, 0)
    gap = np.linalg.norm(points[:20].mean(axis=0) - points[20:].mean(axis=0))
    spread = max(points[:20].std(), points[20:].std())
    assert points.shape == (40, 2)
    assert gap > spread


def test_a_space_that_is_one_point_is_drawn_as_one() -> None:
    assert not project(np.ones((10, 4), dtype=np.float32), 0).any()


def test_four_texts_are_enough() -> None:
    assert np.isfinite(project(np.eye(4, dtype=np.float32), 0)).all()

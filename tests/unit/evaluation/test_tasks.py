from __future__ import annotations

import numpy as np

from cluster.evaluation.data import LabelledTexts, Retrieval, ScoredPairs
from cluster.evaluation.spaces import Spaces
from cluster.evaluation.tasks import Settings, measure_labels, measure_pairs, measure_retrieval
from cluster.types import PoolingType

MEAN = PoolingType.MEAN
SETTINGS = Settings(resamples=100)


def line_of_texts(count: int) -> Spaces:
    """Texts t0, t1 … at equal steps on a quarter of the circle."""
    angles = np.linspace(0, np.pi / 2, count)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return Spaces({f"t{i}": i for i in range(count)}, {MEAN: vectors}, 0)


def test_pairs_in_the_top_fifth_of_the_scale_belong_together() -> None:
    pairs = ScoredPairs(["t0"] * 4, ["t0", "t1", "t2", "t3"], np.asarray([5.0, 4.0, 3.9, 0.0], dtype=np.float32))
    found = measure_pairs(line_of_texts(4), pairs, SETTINGS)
    assert found.deciding.name == "spearman"
    assert found.deciding.estimates[MEAN].value == 1.0
    # A text is at no distance from itself in any space, which would flatter alignment.
    assert found.positives.tolist() == [[0, 1]]


def test_queries_belong_with_the_documents_that_answer_them() -> None:
    data = Retrieval(["t0", "t1", "t2"], ["t1", "t2"], [{0: 1.0, 1: 1.0}, {2: 1.0}])
    found = measure_retrieval(line_of_texts(3), data, SETTINGS)
    assert found.positives.tolist() == [[1, 0]]
    assert found.metrics[1].estimates[MEAN].value == 1.0


def test_texts_of_one_label_belong_together() -> None:
    data = LabelledTexts([f"t{i}" for i in range(8)], list("aaaabbbb"))
    found = measure_labels(line_of_texts(8), data, SETTINGS)
    assert len(found.positives) > 0
    assert all((first < 4) == (second < 4) and first != second for first, second in found.positives.tolist())

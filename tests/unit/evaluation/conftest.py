from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cluster.evaluation.comparison import Comparison, ValidationSet, compare
from cluster.evaluation.data import LabelledTexts, Retrieval, ScoredPairs
from cluster.evaluation.local import LocalModel
from cluster.evaluation.tasks import Settings

WORDS = ("river", "stone", "cloud", "lamp", "bread", "tiger", "train", "piano")


@pytest.fixture
def model() -> Iterator[LocalModel]:
    source = LocalModel.fake(micro_batch_tokens=32)
    yield source
    source.close()


@pytest.fixture(scope="session")
def pairs() -> ScoredPairs:
    first = [f"{word} {n} lies here" for word in WORDS for n in range(3)]
    second = [f"{word} {n + n % 2} lies there" for word in WORDS for n in range(3)]
    return ScoredPairs(first, second, np.asarray([5.0, 2.0, 5.0] * len(WORDS), dtype=np.float32))


@pytest.fixture(scope="session")
def labels() -> LabelledTexts:
    texts = [f"{word} number {n}" for word in WORDS for n in range(4)]
    return LabelledTexts(texts, [word for word in WORDS for _ in range(4)])


@pytest.fixture(scope="session")
def retrieval() -> Retrieval:
    documents = [f"{word} and {other}" for word in WORDS for other in WORDS]
    queries = [f"{word} and {word}" for word in WORDS]
    return Retrieval(documents, queries, [{i * len(WORDS) + i: 1.0, i * len(WORDS): 0.5} for i in range(len(WORDS))])


@pytest.fixture(scope="session")
def comparison(pairs: ScoredPairs, labels: LabelledTexts, retrieval: Retrieval) -> Comparison:
    data = ValidationSet(pairs, labels, retrieval)
    return compare(LocalModel.fake(), data, Settings(resamples=100))

"""The default model on the development split of the STS benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cluster.api.application import create_application
from cluster.client import Client
from cluster.config import ModelConfig, parse_config
from cluster.errors import ModelLoadError
from cluster.evaluation.comparison import Comparison, ValidationSet, compare
from cluster.evaluation.data import ScoredPairs, read_pairs
from cluster.evaluation.local import LocalModel
from cluster.evaluation.server import ServerModel
from cluster.evaluation.spaces import VECTOR_POOLING_TYPES
from cluster.evaluation.tasks import Settings
from cluster.models import source_of
from cluster.types import Float32, PoolingType
from tests.support.pipelines import local_pipeline
from tests.support.servers import served

PAIRS = Path(__file__).resolve().parents[4] / "shared" / "data" / "stsb-en-dev.csv"
SOURCE = "package:all-minilm-l6-v2"
SERVED_PAIRS = 150

# Encoding the split takes seconds on an idle machine and minutes on one that is busy with other tests.
pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    if not PAIRS.is_file():
        pytest.skip(f"{PAIRS} is missing: the STS benchmark's development split")
    config = ModelConfig(source=SOURCE)
    if source_of(config).local_path() is None:
        pytest.skip(f"{SOURCE} is missing: run poolhouse models pull")
    try:
        model = LocalModel.load(config)
    except ModelLoadError as error:
        pytest.fail(error.message)
    try:
        return compare(model, ValidationSet(read_pairs(PAIRS)), Settings(resamples=300))
    finally:
        model.close()


def test_mean_is_recommended_and_the_figures_are_those_measured_before(comparison: Comparison) -> None:
    spearman = {pooling: one.value for pooling, one in comparison.tasks[0].deciding.estimates.items()}
    assert spearman[PoolingType.MEAN] == pytest.approx(0.8671, abs=0.0005)
    assert spearman[PoolingType.WEIGHTED] == pytest.approx(0.8592, abs=0.0005)
    assert spearman[PoolingType.LAST] == pytest.approx(0.8292, abs=0.0005)
    assert spearman[PoolingType.CLS] == pytest.approx(0.7973, abs=0.0005)
    assert comparison.recommendation.pooling is PoolingType.MEAN
    assert comparison.recommendation.tied == ()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = parse_config({"models": {"m": {"source": SOURCE}}, "encoders": {"e": {"model": "m"}}})
    with local_pipeline(config) as local, served(create_application(local.pipeline, local.check_ready)) as found:
        yield found


def test_vectors_and_spearman_are_those_of_a_live_server(comparison: Comparison, url: str) -> None:
    pairs = served_pairs(comparison)
    texts = list(dict.fromkeys([*pairs.first, *pairs.second]))
    places = {text: position for position, text in enumerate(texts)}
    index = comparison.spaces.index
    with Client(url) as client:
        for pooling in VECTOR_POOLING_TYPES:
            vectors = client.embed(texts, pooling=pooling)
            space = comparison.spaces.vectors[pooling]
            cosines = np.einsum("ij,ij->i", space[comparison.spaces.rows(texts)], vectors, dtype=np.float64)
            assert cosines.min() >= 1 - 1e-6
            theirs = spearman_of(vectors, pairs, places)
            assert spearman_of(space, pairs, index) == pytest.approx(theirs, abs=2e-4)


def test_a_comparison_by_url_finds_the_same(comparison: Comparison, url: str) -> None:
    pairs = served_pairs(comparison)
    source = ServerModel.connect(url)
    try:
        found = compare(source, ValidationSet(pairs), Settings(resamples=100))
    finally:
        source.close()
    assert found.recommendation.pooling is PoolingType.MEAN
    assert tuple(found.tasks[0].deciding.estimates) == VECTOR_POOLING_TYPES
    for pooling, estimate in found.tasks[0].deciding.estimates.items():
        ours = spearman_of(comparison.spaces.vectors[pooling], pairs, comparison.spaces.index)
        assert estimate.value == pytest.approx(ours, abs=2e-4)


def served_pairs(comparison: Comparison) -> ScoredPairs:
    pairs = comparison.data.pairs
    assert pairs is not None
    return ScoredPairs(pairs.first[:SERVED_PAIRS], pairs.second[:SERVED_PAIRS], pairs.scores[:SERVED_PAIRS])


def spearman_of(vectors: Float32, pairs: ScoredPairs, places: Mapping[str, int]) -> float:
    first, second = ([places[text] for text in texts] for texts in (pairs.first, pairs.second))
    cosines = np.einsum("ij,ij->i", vectors[first], vectors[second])
    return float(stats.spearmanr(cosines, pairs.scores).statistic)

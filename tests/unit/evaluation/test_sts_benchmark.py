"""The default model on the development split of the STS benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cluster.assembly import load_encoder, load_tokenizer
from cluster.config import ModelConfig, parse_config
from cluster.errors import ModelLoadError
from cluster.evaluation.comparison import Comparison, ValidationSet, compare
from cluster.evaluation.data import read_pairs
from cluster.evaluation.local import LocalModel
from cluster.evaluation.spaces import VECTOR_POOLING_TYPES
from cluster.evaluation.tasks import Settings
from cluster.models import source_of
from cluster.pooling import normalize
from cluster.tokenization import TextBatch, TextOptions
from cluster.types import Float32, PoolingType, RequestFacts

PAIRS = Path(__file__).resolve().parents[4] / "shared" / "data" / "stsb-en-dev.csv"
SOURCE = "package:all-minilm-l6-v2"
SERVED_PAIRS = 150

pytestmark = pytest.mark.model


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


def test_vectors_and_spearman_are_those_of_the_encoder_that_serves(comparison: Comparison) -> None:
    pairs = comparison.data.pairs
    assert pairs is not None
    first, second = pairs.first[:SERVED_PAIRS], pairs.second[:SERVED_PAIRS]
    texts = list(dict.fromkeys([*first, *second]))
    rows = comparison.spaces.rows(texts)
    for pooling, served in serve(texts).items():
        space = comparison.spaces.vectors[pooling]
        assert np.einsum("ij,ij->i", space[rows], served, dtype=np.float64).min() >= 1 - 1e-6
        places = {text: position for position, text in enumerate(texts)}
        theirs = spearman_of(served, [places[t] for t in first], [places[t] for t in second], pairs.scores)
        index = comparison.spaces.index
        ours = spearman_of(space, [index[t] for t in first], [index[t] for t in second], pairs.scores)
        assert ours == pytest.approx(theirs, abs=2e-4)


def spearman_of(vectors: Float32, first: list[int], second: list[int], scores: Float32) -> float:
    cosines = np.einsum("ij,ij->i", vectors[first], vectors[second])
    return float(stats.spearmanr(cosines, scores[: len(first)]).statistic)


def serve(texts: list[str]) -> dict[PoolingType, Float32]:
    """Each pooling type's vectors by the stages of the server, each text with each pooling type in one message."""
    config = parse_config({"models": {"m": {"source": SOURCE}}, "encoders": {"e": {"model": "m"}}})
    tokenizer, encoder = load_tokenizer(config), load_encoder(config, "e")
    found: dict[PoolingType, Float32] = {}
    try:
        for pooling in VECTOR_POOLING_TYPES:
            batch = TextBatch("m", list(texts), [0] * len(texts), [TextOptions(pooling)], [RequestFacts("test")])
            result = encoder.submit(tokenizer.tokenize(batch)).result()
            assert not result.errors
            found[pooling] = normalize(np.concatenate([result.rows(i) for i in range(len(texts))]), 2)
    finally:
        encoder.close()
        for model in tokenizer.models.values():
            model.vocabulary.close()
    return found

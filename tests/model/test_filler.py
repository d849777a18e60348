"""Filler changes how long llama.cpp takes for a small call, and not what a text is encoded to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cluster.batching.encoder import Encoder
from cluster.batching.planning import Filling, MicroBatchSizes
from cluster.config import EncoderConfig
from cluster.engine import load_engine
from cluster.models.inspect import inspect_gguf
from cluster.models.package import packaged_path
from cluster.types import Float32, PoolingType
from tests.support.batches import token_batch

PATH = packaged_path("all-minilm-l6-v2", "f16")
FILLED = MicroBatchSizes(((64, 1.0),), Filling(64, 16, ((1, 2.0, 2.0), (63, 2.0, 2.0))))
LENGTHS = [1, 5, 17, 40, 63]

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not PATH.exists(), reason="the default model is not prepared; run: poolhouse models pull"),
]


@pytest.fixture(scope="module")
def encoders() -> Iterator[tuple[Encoder, Encoder]]:
    """With filler and without."""
    facts = inspect_gguf(PATH).facts()
    both = [
        Encoder(load_engine(EncoderConfig(model="minilm"), PATH, facts, threads=1), "f", sizes)
        for sizes in (FILLED, MicroBatchSizes.fixed(64))
    ]
    yield both[0], both[1]
    for encoder in both:
        encoder.close()


def _rows(encoder: Encoder, ids: list[int], pooling: PoolingType) -> Float32:
    return encoder.submit(token_batch([ids], pooling=pooling)).result(60).rows(0)


@pytest.mark.parametrize("pooling", [PoolingType.NONE, PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_text_is_encoded_alike_with_filler(
    encoders: tuple[Encoder, Encoder], length: int, pooling: PoolingType
) -> None:
    ids = np.random.default_rng(length).integers(1000, 29000, size=length).tolist()
    filled, plain = (_rows(encoder, ids, pooling) for encoder in encoders)
    assert filled.shape == plain.shape
    norms = np.linalg.norm(filled, axis=-1) * np.linalg.norm(plain, axis=-1)
    assert ((filled * plain).sum(axis=-1) / norms).min() > 0.99999

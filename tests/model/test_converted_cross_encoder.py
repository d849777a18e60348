"""A BertForSequenceClassification that our converter wrote scores as its layers say, pooler and token types included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.config import EncoderConfig, TokenTypes
from cluster.engine import load_engine
from cluster.models.convert import convert_bert
from cluster.models.inspect import inspect_gguf
from cluster.types import Int32, PoolingType, offsets_of
from tests.support.ggufs.numerics import Float64, attention, full_mask, gelu, layer_norm
from tests.unit.models.tiny import LAYERS, POSITIONS, VOCABULARY_SIZE, bert_tensors, write_bert

HEADS, LABELS, EPSILON = 4, 3, 1e-12
TOLERANCE = 1e-3
LENGTHS, SECONDS = (7, 20, 4, 13), (3, 11, 2, 6)


class _Pytorch:
    """The forward pass under the names that Hugging Face gives the tensors."""

    def __init__(self, tensors: dict[str, NDArray[np.float32]]) -> None:
        self._tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def logits(self, ids: Int32, token_types: NDArray[np.int64]) -> Float64:
        tables = (("word", ids), ("position", np.arange(len(ids))), ("token_type", token_types))
        x = sum(self._tensors[f"embeddings.{name}_embeddings.weight"][rows] for name, rows in tables)
        x = self._norm("embeddings.LayerNorm", np.asarray(x))
        for layer in range(LAYERS):
            stem = f"encoder.layer.{layer}"
            q, k, v = (
                self._linear(f"{stem}.attention.self.{name}", x).reshape(len(x), HEADS, -1)
                for name in ("query", "key", "value")
            )
            mixed = attention(q, k, v, full_mask(len(x)), kv_cache=False)
            x = self._norm(
                f"{stem}.attention.output.LayerNorm", x + self._linear(f"{stem}.attention.output.dense", mixed)
            )
            inner = gelu(self._linear(f"{stem}.intermediate.dense", x))
            x = self._norm(f"{stem}.output.LayerNorm", x + self._linear(f"{stem}.output.dense", inner))
        return self._linear("classifier", np.tanh(self._linear("pooler.dense", x[:1])))[0]

    def _linear(self, name: str, x: Float64) -> Float64:
        return x @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]

    def _norm(self, name: str, x: Float64) -> Float64:
        return layer_norm(x, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"], EPSILON)


@pytest.fixture(scope="module")
def tensors() -> dict[str, NDArray[np.float32]]:
    """Weights with which scores spread and depend on the words' order."""
    scaled = {}
    for name, tensor in bert_tensors(labels=LABELS).items():
        matrix = tensor.ndim == 2
        scaled[name] = tensor * 5 if matrix else tensor + np.float32("LayerNorm.weight" in name)
    return scaled


@pytest.mark.parametrize("token_types", [None, TokenTypes.ZERO], ids=["segments", "zero"])
def test_scores_are_the_layers(
    token_types: TokenTypes | None,
    tensors: dict[str, NDArray[np.float32]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path / "cache"))
    write_bert(tmp_path / "bert", tensors=tensors, id2label={"0": "a", "1": "b", "2": "c"})
    path = tmp_path / "m.gguf"
    convert_bert(tmp_path / "bert", path, "f32", name="tiny")
    facts = inspect_gguf(path).facts()
    assert facts.segment_types
    config = EncoderConfig(model="m", micro_batch_tokens=64, flash_attention="off", context_tokens=POSITIONS)
    random = np.random.default_rng(4)
    pairs = [random.integers(0, VOCABULARY_SIZE, length, dtype=np.int32) for length in LENGTHS]
    engine = load_engine(config, path, facts, [PoolingType.RANK], token_types=token_types)
    try:
        scores = engine.score(np.concatenate(pairs), offsets_of(LENGTHS), np.array(SECONDS, dtype=np.int32))
    finally:
        engine.close()
    reference = _Pytorch(tensors)
    types = [
        (np.arange(length) >= second).astype(np.int64) * (token_types is None)
        for length, second in zip(LENGTHS, SECONDS, strict=True)
    ]
    expected = np.stack([reference.logits(ids, kinds) for ids, kinds in zip(pairs, types, strict=True)])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)


def test_the_reference_scores_spread_and_feel_token_types(tensors: dict[str, NDArray[np.float32]]) -> None:
    random = np.random.default_rng(4)
    texts = [random.integers(0, VOCABULARY_SIZE, 16, dtype=np.int32) for _ in range(20)]
    reference, zero = _Pytorch(tensors), np.zeros(16, dtype=np.int64)
    scores = np.stack([reference.logits(ids, zero) for ids in texts])
    typed = np.stack([reference.logits(ids, (np.arange(16) >= 8).astype(np.int64)) for ids in texts])
    assert scores.std(axis=0).min() > 100 * TOLERANCE
    assert np.abs(typed - scores).max() > 20 * TOLERANCE

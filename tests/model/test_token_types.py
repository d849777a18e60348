"""The real cross-encoder with and without token types, against the PyTorch model's logits."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from cluster.config import EncoderConfig, TokenTypes
from cluster.engine import load_engine, load_vocabulary
from cluster.errors import ModelLoadError
from cluster.models.inspect import inspect_gguf
from cluster.types import PoolingType, offsets_of
from tests.support.ggufs import write_xlm_roberta_reranker

MODELS = Path(__file__).parent.parent.parent.parent / "shared" / "models"
GGUF = MODELS / "minilm-stsb-cross-encoder-f16.gguf"
REFERENCE = MODELS / "minilm-stsb-cross-encoder-reference.csv"
TOLERANCE = 1e-2

CONFIG = EncoderConfig(model="m", micro_batch_tokens=512)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.skipif(not GGUF.is_file(), reason=f"needs the cross-encoder {GGUF.name} in ../shared/models")
@pytest.mark.parametrize(
    ("token_types", "column"),
    [(None, "logit"), (TokenTypes.ZERO, "logit"), (TokenTypes.SEGMENTS, "logit_with_token_types")],
)
def test_logits_are_pytorchs(token_types: TokenTypes | None, column: str) -> None:
    with REFERENCE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    vocabulary = load_vocabulary(GGUF)
    pairs, seconds = [], []
    for row in rows:
        query, document = vocabulary.tokenize(row["query"]), vocabulary.tokenize(row["document"])
        pairs.append(np.concatenate([[vocabulary.bos], query, [vocabulary.eos], document, [vocabulary.eos]]))
        seconds.append(len(query) + 2)
    vocabulary.close()
    engine = load_engine(CONFIG, GGUF, inspect_gguf(GGUF).facts(), [PoolingType.RANK], token_types=token_types)
    try:
        logits = [
            float(
                engine.score(pair.astype(np.int32), offsets_of([len(pair)]), np.array([second], dtype=np.int32))[0, 0]
            )
            for pair, second in zip(pairs, seconds, strict=True)
        ]
    finally:
        engine.close()
    np.testing.assert_allclose(logits, [float(row[column]) for row in rows], rtol=0, atol=TOLERANCE)


def test_model_with_one_token_type_cannot_have_segments(tmp_path: Path) -> None:
    path = write_xlm_roberta_reranker(tmp_path / "m.gguf").path
    with pytest.raises(ModelLoadError, match=r"has 1 token type\(s\) where two are needed; set models.….token_types"):
        load_engine(CONFIG, path, inspect_gguf(path).facts(), [PoolingType.RANK], token_types=TokenTypes.SEGMENTS)

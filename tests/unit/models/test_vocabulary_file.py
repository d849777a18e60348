from __future__ import annotations

from pathlib import Path

import pytest

from cluster.assembly import describe, load_tokenizer, rebuild_tokenizer, vocabularies
from cluster.config import parse_config
from cluster.errors import ModelLoadError
from cluster.models.vocabulary_file import vocabulary_of
from cluster.texts import TextBatch, TextOptions
from cluster.types import PoolingType, RequestFacts


def test_the_fake_engine_s_vocabulary_is_rebuilt_from_nothing() -> None:
    config = parse_config({"models": {"m": {"source": "fake"}}, "encoders": {"e": {"model": "m", "engine": "fake"}}})
    own = load_tokenizer(config)
    texts = TextBatch("m", ["a text"], [0], [TextOptions(PoolingType.MEAN)], [RequestFacts("r")])
    rebuilt = rebuild_tokenizer(config, describe(own), vocabularies(config))
    assert rebuilt.tokenize(texts).token_ids.tolist() == own.tokenize(texts).token_ids.tolist()


def test_a_file_that_is_no_gguf_has_no_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "not.gguf"
    file.write_bytes(b"something else")
    with pytest.raises(ModelLoadError, match="not a whole GGUF"):
        vocabulary_of(file)

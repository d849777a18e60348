from __future__ import annotations

from cluster.assembly import describe, load_tokenizer, rebuild_tokenizer, vocabularies
from cluster.config import parse_config
from cluster.models import resolve
from cluster.texts import TextBatch, TextOptions
from cluster.types import PoolingType, RequestFacts

TEXTS = ["The capital of China is Beijing.", "Ein schöner Tag, 你好 한국어", "", "x" * 3000, "[CLS] a [SEP] b"]


def test_a_vocabulary_without_tensors_tokenizes_as_the_model_s_own() -> None:
    config = parse_config(
        {
            "models": {"m": {"source": "package:all-minilm-l6-v2", "prompts": {"query": "query: "}}},
            "encoders": {"e": {"model": "m", "context_tokens": 128}},
        }
    )
    own = load_tokenizer(config)
    files = vocabularies(config)
    content = files["m"]
    assert content is not None
    assert len(content) < resolve(config.models["m"]).stat().st_size / 20
    rebuilt = rebuild_tokenizer(config, describe(own), files)
    for options in (TextOptions(PoolingType.MEAN), TextOptions(PoolingType.MEAN, prompt="query: ", parse_special=True)):
        texts = TextBatch("m", list(TEXTS), [0] * len(TEXTS), [options], [RequestFacts("r")])
        expected, found = own.tokenize(texts), rebuilt.tokenize(texts)
        assert found.token_ids.tolist() == expected.token_ids.tolist()
        assert found.offsets.tolist() == expected.offsets.tolist()
        assert found.fingerprint == expected.fingerprint
        assert {item: str(error) for item, error in found.errors.items()} == {
            item: str(error) for item, error in expected.errors.items()
        }

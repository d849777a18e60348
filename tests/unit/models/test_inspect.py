from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ModelLoadError
from cluster.models.inspect import estimate_memory_bytes, inspect_gguf
from cluster.types import PoolingType, ScoreType
from tests.unit.models.tiny import write_gguf

_RANK, _CLS = PoolingType.RANK, PoolingType.CLS
_EMBEDDINGS = (PoolingType.NONE, PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST, PoolingType.WEIGHTED)
_CAUSAL_EMBEDDINGS = (PoolingType.NONE, PoolingType.MEAN, PoolingType.LAST, PoolingType.WEIGHTED)


def test_report_holds_what_the_file_says(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "m.gguf",
        keys={
            "general.name": "Tiny",
            "general.file_type": 7,
            "pooling_type": 4,
            "attention.causal": False,
            "classifier.output_labels": ["no", "yes"],
            "tokenizer.chat_template": "{{ text }}",
            "tokenizer.chat_template.rerank": "{{ query }} {{ document }}",
            "tokenizer.chat_templates": ["rerank"],
            "tokenizer.ggml.add_eos_token": True,
        },
        tensors=("cls.weight", "cls.output.weight"),
        tokens=9,
    )
    report = inspect_gguf(path)
    assert dataclasses.asdict(report) == {
        "path": path,
        "file_bytes": path.stat().st_size,
        "architecture": "bert",
        "name": "Tiny",
        "dimensions": 64,
        "layers": 2,
        "heads": 4,
        "key_value_heads": 4,
        "head_dimensions": 16,
        "context_tokens": 512,
        "quantisation": "q8_0",
        "vocabulary_type": "bert",
        "vocabulary_size": 9,
        "causal": False,
        "trained_pooling": PoolingType.RANK,
        "head_tensors": ("cls.weight", "cls.output.weight"),
        "labels": ("no", "yes"),
        "templates": {"default": "{{ text }}", "rerank": "{{ query }} {{ document }}"},
        "adds_end_token": True,
        "segment_types": False,
    }


def test_report_without_optional_keys_has_defaults(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "plain.gguf", keys={"context_length": None, "attention.head_count": None})
    report = inspect_gguf(path)
    assert (report.name, report.context_tokens, report.heads, report.quantisation) == ("plain", 512, 1, "unknown")
    assert report.trained_pooling is None
    assert report.templates == {}


def test_heads_of_each_layer_count_by_the_largest(tmp_path: Path) -> None:
    keys = {"attention.head_count": [2, 8], "attention.head_count_kv": [1, 4]}
    report = inspect_gguf(write_gguf(tmp_path / "m.gguf", "qwen3", keys=keys))
    assert (report.heads, report.key_value_heads) == (8, 4)


def test_output_width_wins_over_inner_width(tmp_path: Path) -> None:
    report = inspect_gguf(write_gguf(tmp_path / "m.gguf", keys={"embedding_length_out": 128}))
    assert report.dimensions == 128


def test_vocabulary_size_without_a_token_list_is_the_key(tmp_path: Path) -> None:
    report = inspect_gguf(write_gguf(tmp_path / "m.gguf", tokens=0, keys={"vocab_size": 77}))
    assert (report.vocabulary_size, report.vocabulary_type) == (77, "none")


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (0, PoolingType.NONE),
        (1, PoolingType.MEAN),
        (2, PoolingType.CLS),
        (3, PoolingType.LAST),
        (4, PoolingType.RANK),
        (99, None),
    ],
)
def test_trained_pooling_follows_the_number(tmp_path: Path, pooling: int, expected: PoolingType | None) -> None:
    report = inspect_gguf(write_gguf(tmp_path / "m.gguf", keys={"pooling_type": pooling}))
    assert report.trained_pooling is expected


@pytest.mark.parametrize(
    ("architecture", "said", "expected"),
    [
        ("bert", None, False),
        ("nomic-bert", None, False),
        ("qwen3", None, True),
        ("llama", None, True),
        ("qwen3", False, False),
        ("bert", True, True),
    ],
)
def test_causality_is_the_file_s_or_the_architecture_s(
    tmp_path: Path, architecture: str, said: bool | None, expected: bool
) -> None:
    report = inspect_gguf(write_gguf(tmp_path / "m.gguf", architecture, keys={"attention.causal": said}))
    assert report.causal is expected


@pytest.mark.parametrize(
    ("architecture", "keys", "tensors", "answered", "refused"),
    [
        pytest.param("bert", {}, (), _EMBEDDINGS, {_RANK: "has no classification head"}, id="embedding-bert"),
        pytest.param(
            "bert",
            {"pooling_type": 4},
            (),
            _EMBEDDINGS,
            {_RANK: "trained to rank, but its classification head was lost"},
            id="rank-without-head",
        ),
        pytest.param(
            "bert",
            {"pooling_type": 4},
            ("cls.output.weight",),
            _EMBEDDINGS,
            {_RANK: "its pooler .dense . tanh. was dropped in conversion"},
            id="cross-encoder-without-pooler",
        ),
        pytest.param(
            "bert",
            {"pooling_type": 4},
            ("cls.weight", "cls.output.weight"),
            tuple(PoolingType),
            {},
            id="whole-cross-encoder",
        ),
        pytest.param(
            "qwen3",
            {"pooling_type": 3},
            (),
            _CAUSAL_EMBEDDINGS,
            {_RANK: "has no classification head", _CLS: "its first token sees no other"},
            id="causal-embedding",
        ),
        pytest.param(
            "qwen3",
            {"pooling_type": 4},
            ("cls.output.weight",),
            (PoolingType.NONE, PoolingType.MEAN, PoolingType.LAST, PoolingType.RANK, PoolingType.WEIGHTED),
            {_CLS: "its first token sees no other"},
            id="causal-reranker",
        ),
    ],
)
def test_only_honest_pooling_types_are_answered_and_the_others_say_why(
    tmp_path: Path,
    architecture: str,
    keys: dict[str, Any],
    tensors: tuple[str, ...],
    answered: tuple[PoolingType, ...],
    refused: dict[PoolingType, str],
) -> None:
    facts = inspect_gguf(write_gguf(tmp_path / "m.gguf", architecture, keys=keys, tensors=tensors)).facts()
    assert facts.pooling_types == answered
    assert facts.refused.keys() == refused.keys()
    for pooling, why in refused.items():
        with pytest.raises(ValueError, match=why):
            raise ValueError(facts.refused[pooling])


@pytest.mark.parametrize(
    ("architecture", "tensors", "score_type"),
    [
        ("bert", ("cls.weight", "cls.output.weight"), ScoreType.LOGIT),
        ("jina-bert-v2", ("cls.weight",), ScoreType.TANH),
        ("modern-bert", ("cls.weight", "cls.output.weight"), ScoreType.LOGIT),
        ("qwen3", ("cls.output.weight",), ScoreType.PROBABILITY),
        ("llama", ("cls.output.weight",), ScoreType.LOGIT),
    ],
)
def test_scores_are_what_the_rank_graph_ends_in(
    tmp_path: Path, architecture: str, tensors: tuple[str, ...], score_type: ScoreType
) -> None:
    headed = write_gguf(tmp_path / "headed.gguf", architecture, tensors=tensors)
    assert inspect_gguf(headed).facts().score_type is score_type


def test_head_without_label_names_gets_one(tmp_path: Path) -> None:
    headed = write_gguf(tmp_path / "headed.gguf", "qwen3", tensors=("cls.output.weight",))
    assert inspect_gguf(headed).facts().labels == ("score",)
    assert inspect_gguf(write_gguf(tmp_path / "bare.gguf", "qwen3")).facts().labels == ()


def test_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"there is no file .*absent"):
        inspect_gguf(tmp_path / "absent.gguf")


@pytest.mark.parametrize("key", ["embedding_length", "block_count"])
def test_file_without_a_text_model_s_keys_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ModelLoadError, match="it is not a text model"):
        inspect_gguf(write_gguf(tmp_path / "m.gguf", keys={key: None}))


def test_memory_of_a_bert_counts_logits_of_a_whole_context(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    report = dataclasses.replace(inspect_gguf(path), vocabulary_size=250_000)
    logits = 250_000 * 8_192 * 4
    one = estimate_memory_bytes(report, 8_192, 256)
    assert logits < one < 2 * logits
    # Headless, attention over the whole context is what remains.
    attention = 2 * 4 * 8_192**2 * 4
    assert attention < estimate_memory_bytes(report, 8_192, 256, headless=True) < one - 0.99 * logits
    # A second context reserves its own.
    assert estimate_memory_bytes(report, 8_192, 256, contexts=2) - one > logits


def test_memory_of_a_causal_model_counts_one_micro_batch_and_the_cache(tmp_path: Path) -> None:
    keys = {"attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 128}
    report = inspect_gguf(write_gguf(tmp_path / "m.gguf", "qwen3", keys=keys))
    assert report.head_dimensions == 128
    short, long = (estimate_memory_bytes(report, tokens, 256) for tokens in (1_000, 2_000))
    # Keys and values of 2 layers, 2 heads of 128 numbers, 2 bytes each.
    assert long - short == 2 * 2 * 2 * 128 * 2 * 1_000

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from cluster.errors import ModelLoadError
from cluster.models import inspect_gguf
from cluster.models.convert import convert_bert
from cluster.types import PoolingType
from tests.unit.models.tiny import INNER, LAYERS, POSITIONS, VOCABULARY_SIZE, WIDTH, WORDS, bert_tensors, write_bert

_SAMPLES = {
    "token_embd.weight": "embeddings.word_embeddings.weight",
    "position_embd.weight": "embeddings.position_embeddings.weight",
    "token_types.weight": "embeddings.token_type_embeddings.weight",
    "token_embd_norm.bias": "embeddings.LayerNorm.bias",
    "blk.1.attn_q.weight": "encoder.layer.1.attention.self.query.weight",
    "blk.1.attn_output.bias": "encoder.layer.1.attention.output.dense.bias",
    "blk.0.attn_output_norm.weight": "encoder.layer.0.attention.output.LayerNorm.weight",
    "blk.0.ffn_up.weight": "encoder.layer.0.intermediate.dense.weight",
    "blk.0.ffn_down.weight": "encoder.layer.0.output.dense.weight",
    "blk.1.layer_output_norm.bias": "encoder.layer.1.output.LayerNorm.bias",
}


def _convert(folder: Path, quantisation: str = "f32") -> gguf.GGUFReader:
    target = folder.parent / f"{folder.name}-{quantisation}.gguf"
    convert_bert(folder, target, quantisation, name="tiny")
    return gguf.GGUFReader(target)


def _value(reader: gguf.GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    assert field is not None, key
    return field.contents()


def _tensors(reader: gguf.GGUFReader) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in reader.tensors}


def test_every_tensor_arrives_under_its_name(tmp_path: Path) -> None:
    original = write_bert(tmp_path / "bert")
    tensors = _tensors(_convert(tmp_path / "bert"))
    # Five of the embeddings and sixteen of each layer; the pooler serves a classifier only.
    assert len(tensors) == 5 + 16 * LAYERS
    for name, source in _SAMPLES.items():
        assert np.array_equal(tensors[name].data, original[source]), name


@pytest.mark.parametrize(
    ("quantisation", "matrix_type", "tolerance"),
    [
        ("f32", gguf.GGMLQuantizationType.F32, 0.0),
        ("f16", gguf.GGMLQuantizationType.F16, 2e-4),
        ("q8_0", gguf.GGMLQuantizationType.Q8_0, 2e-3),
    ],
)
def test_matrices_take_the_quantisation_and_the_rest_stays_f32(
    tmp_path: Path, quantisation: str, matrix_type: gguf.GGMLQuantizationType, tolerance: float
) -> None:
    original = write_bert(tmp_path / "bert")
    reader = _convert(tmp_path / "bert", quantisation)
    tensors = _tensors(reader)
    matrices = {"token_embd.weight", "blk.1.attn_q.weight", "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"}
    for name, source in _SAMPLES.items():
        expected = matrix_type if name in matrices else gguf.GGMLQuantizationType.F32
        assert tensors[name].tensor_type == expected, name
        values = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)
        assert np.abs(values - original[source]).max() <= tolerance, name
    assert inspect_gguf(tmp_path / f"bert-{quantisation}.gguf").quantisation == quantisation


def test_matrix_whose_rows_are_no_multiple_of_32_stays_f16(tmp_path: Path) -> None:
    narrow = {name: np.ascontiguousarray(tensor[..., :20]) for name, tensor in bert_tensors().items()}
    write_bert(tmp_path / "bert", tensors=narrow, hidden_size=20)
    tensors = _tensors(_convert(tmp_path / "bert", "q8_0"))
    assert tensors["blk.0.attn_q.weight"].tensor_type == gguf.GGMLQuantizationType.F16


def test_metadata_is_what_llama_cpp_reads(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert", pooling={"pooling_mode_mean_tokens": True})
    reader = _convert(tmp_path / "bert")
    expected = {
        "general.architecture": "bert",
        "general.name": "tiny",
        "bert.block_count": LAYERS,
        "bert.context_length": POSITIONS,
        "bert.embedding_length": WIDTH,
        "bert.feed_forward_length": INNER,
        "bert.attention.head_count": 4,
        "bert.attention.causal": False,
        "bert.pooling_type": gguf.PoolingType.MEAN,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.mask_token_id": 4,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }
    assert {key: _value(reader, key) for key in expected} == expected
    assert _value(reader, "bert.attention.layer_norm_epsilon") == pytest.approx(1e-12)


def test_vocabulary_marks_beginnings_of_words_and_fills_up_to_its_size(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    reader = _convert(tmp_path / "bert")
    tokens = _value(reader, "tokenizer.ggml.tokens")
    types = _value(reader, "tokenizer.ggml.token_type")
    assert tokens == [*WORDS[:5], "▁the", "▁capital", "s", "▁of", "▁china", "▁東", "[PAD11]", "[PAD12]", "[PAD13]"]
    control, normal, unused = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL, gguf.TokenType.UNUSED
    assert types == [control] * 5 + [normal] * 6 + [unused] * 3
    assert len(tokens) == VOCABULARY_SIZE


@pytest.mark.parametrize("lowercase", [True, False])
def test_case_follows_the_tokenizer(tmp_path: Path, lowercase: bool) -> None:
    write_bert(tmp_path / "bert", lowercase=lowercase)
    assert _value(_convert(tmp_path / "bert"), "tokenizer.ggml.normalizer.lowercase") is lowercase


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, PoolingType.MEAN),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, PoolingType.CLS),
        ({"pooling_mode_max_tokens": True}, None),
        (None, None),
    ],
)
def test_pooling_type_is_the_trained_one_or_none(
    tmp_path: Path, modes: dict[str, bool] | None, expected: PoolingType | None
) -> None:
    write_bert(tmp_path / "bert", pooling=modes)
    convert_bert(tmp_path / "bert", tmp_path / "m.gguf", "f16", name="tiny")
    assert inspect_gguf(tmp_path / "m.gguf").trained_pooling is expected


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_classifier_keeps_its_pooler_and_labels(tmp_path: Path, prefix: str) -> None:
    tensors = bert_tensors(labels=3, prefix=prefix)
    names = {"2": "contradiction", "0": "entailment", "1": "neutral"}
    write_bert(tmp_path / "bert", tensors=tensors, id2label=names)
    reader = _convert(tmp_path / "bert")
    written = _tensors(reader)
    for name, source in (
        ("cls.weight", f"{prefix}pooler.dense.weight"),
        ("cls.bias", f"{prefix}pooler.dense.bias"),
        ("cls.output.weight", "classifier.weight"),
        ("cls.output.bias", "classifier.bias"),
    ):
        assert np.array_equal(written[name].data, tensors[source]), name
    report = inspect_gguf(tmp_path / "bert-f32.gguf")
    assert report.trained_pooling is PoolingType.RANK
    assert report.labels == ("entailment", "neutral", "contradiction")
    assert PoolingType.RANK in report.facts().pooling_types


def test_classifier_without_label_names_gets_one(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert", tensors=bert_tensors(labels=1), id2label=None)
    convert_bert(tmp_path / "bert", tmp_path / "m.gguf", "f16", name="tiny")
    assert inspect_gguf(tmp_path / "m.gguf").labels == ("LABEL_0",)


def test_old_names_and_left_overs_of_training_are_taken(tmp_path: Path) -> None:
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in bert_tensors(prefix="bert.").items()
    }
    tensors["cls.predictions.bias"] = np.zeros(VOCABULARY_SIZE, dtype=np.float32)
    tensors["cls.seq_relationship.weight"] = np.zeros((2, WIDTH), dtype=np.float32)
    tensors["bert.embeddings.position_ids"] = np.arange(POSITIONS, dtype=np.float32)[None]
    write_bert(tmp_path / "bert", tensors=tensors)
    written = _tensors(_convert(tmp_path / "bert"))
    assert len(written) == 5 + 16 * LAYERS
    assert np.array_equal(written["token_embd_norm.weight"].data, tensors["bert.embeddings.LayerNorm.gamma"])


def _unconvertible(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        convert_bert(folder, folder.parent / "m.gguf", "f16", name="tiny")
    return caught.value.message


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "vocab.txt"])
def test_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write_bert(tmp_path / "bert")
    (tmp_path / "bert" / missing).unlink()
    assert f"has no {missing}" in _unconvertible(tmp_path / "bert")


def test_other_architecture_is_named(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert", model_type="roberta")
    assert "'roberta' model; only 'bert'" in _unconvertible(tmp_path / "bert")


def test_missing_keys_are_named(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert", hidden_size=None, vocab_size=None)
    assert _unconvertible(tmp_path / "bert").endswith("lacks hidden_size, vocab_size")


def test_config_that_is_no_json_is_named(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    (tmp_path / "bert" / "config.json").write_text("{", encoding="utf-8")
    assert "config.json cannot be read" in _unconvertible(tmp_path / "bert")


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    weights = tmp_path / "bert" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors is damaged" in _unconvertible(tmp_path / "bert")


def test_bfloat16_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    header = {"embeddings.word_embeddings.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    encoded = json.dumps(header).encode()
    weights = struct.pack("<Q", len(encoded)) + encoded + bytes(8)
    (tmp_path / "bert" / "model.safetensors").write_bytes(weights)
    assert "save the model as float32" in _unconvertible(tmp_path / "bert")


def test_unknown_tensor_is_named(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert", tensors={**bert_tensors(), "adapter.weight": np.zeros((2, 2), dtype=np.float32)})
    assert "'adapter.weight' has no place" in _unconvertible(tmp_path / "bert")


def test_vocabulary_larger_than_the_embeddings_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert", vocab_size=4)
    assert "vocab.txt has 11 entries and config.json says 4" in _unconvertible(tmp_path / "bert")


def test_vocabulary_without_special_tokens_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\nthe\n", encoding="utf-8")
    assert "vocab.txt lacks [MASK], [SEP]" in _unconvertible(tmp_path / "bert")

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from cluster.errors import ModelLoadError
from cluster.models.convert import convert_bert
from cluster.models.header import TensorEntry, read_header
from tests.unit.models.tiny import bert_tensors, write_bert, write_gguf


@pytest.mark.parametrize("quantisation", ["f32", "f16", "q8_0"])
def test_header_agrees_with_the_gguf_library(tmp_path: Path, quantisation: str) -> None:
    write_bert(tmp_path / "bert", tensors=bert_tensors(labels=2), id2label={"0": "a", "1": "b"})
    path = tmp_path / "m.gguf"
    convert_bert(tmp_path / "bert", path, quantisation, name="tiny")
    header, reader = read_header(path), gguf.GGUFReader(path)
    expected = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    vocabulary = {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type"}
    assert header.metadata == {key: value for key, value in expected.items() if key not in vocabulary}
    assert header.array_lengths == {key: len(value) for key, value in expected.items() if isinstance(value, list)}
    assert header.tensors == {
        tensor.name: TensorEntry(
            tuple(int(axis) for axis in reversed(tensor.shape)),
            tensor.tensor_type,
            int(tensor.data_offset),
            int(tensor.n_bytes),
        )
        for tensor in reader.tensors
    }


def test_every_scalar_type_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "bert")
    values = {
        "u8": (writer.add_uint8, 200),
        "i8": (writer.add_int8, -100),
        "u16": (writer.add_uint16, 60_000),
        "i16": (writer.add_int16, -30_000),
        "u32": (writer.add_uint32, 4_000_000_000),
        "i32": (writer.add_int32, -2_000_000_000),
        "u64": (writer.add_uint64, 2**63),
        "i64": (writer.add_int64, -(2**62)),
        "f32": (writer.add_float32, 0.5),
        "f64": (writer.add_float64, 0.1),
        "flag": (writer.add_bool, True),
        "text": (writer.add_string, "北京"),
    }
    for key, (add, value) in values.items():
        add(key, value)
    writer.add_array("list", ["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = read_header(tmp_path / "m.gguf").metadata
    assert {key: read[key] for key in values} == {key: value for key, (_, value) in values.items()}
    assert read["list"] == ["a", "b"]


def test_vocabulary_is_counted_and_not_decoded(tmp_path: Path) -> None:
    header = read_header(write_gguf(tmp_path / "m.gguf", tokens=1_000))
    assert header.array_lengths["tokenizer.ggml.tokens"] == 1_000
    assert header.array_lengths["tokenizer.ggml.scores"] == 1_000
    assert header.metadata["tokenizer.ggml.model"] == "bert"
    assert not {"tokenizer.ggml.tokens", "tokenizer.ggml.scores"} & header.metadata.keys()


def test_span_of_a_key_holds_its_bytes(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    begin, end = read_header(path).spans["bert.block_count"]
    key = b"bert.block_count"
    assert path.read_bytes()[begin:end] == struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, 2)


def test_another_alignment_is_followed(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "bert")
    writer.add_custom_alignment(4_096)
    writer.add_tensor("x", np.ones(1_024, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path = tmp_path / "m.gguf"
    header = read_header(path)
    assert header.alignment == 4_096
    assert header.tensors["x"].begin == 4_096
    assert header.tensors["x"].shape == (1_024,)
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(ModelLoadError, match="its tensors end at byte 8,192 and the file at byte 5,000"):
        read_header(path)


def _change(data: bytes, at: int, layout: str, value: int) -> bytes:
    return data[:at] + struct.pack(layout, value) + data[at + struct.calcsize(layout) :]


def _after(data: bytes, text: bytes) -> int:
    return data.index(text) + len(text)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        pytest.param(lambda data: b"", "empty file", id="empty"),
        pytest.param(lambda data: b"PK\x03\x04" + data, r"begins with b'PK", id="another-format"),
        pytest.param(lambda data: data[:6], "cut short", id="cut-in-the-version"),
        pytest.param(lambda data: _change(data, 4, "<I", 1), "it is version 1;", id="old-version"),
        pytest.param(lambda data: _change(data, 4, ">I", 3), "it is big-endian;", id="big-endian"),
        pytest.param(lambda data: _change(data, 8, "<Q", 2**60), "cut short|axes|type", id="many-tensors"),
        pytest.param(lambda data: _change(data, 16, "<Q", 2**60), "cut short|type|twice", id="many-keys"),
        pytest.param(lambda data: _change(data, 24, "<Q", 2**63), "cut short", id="long-key"),
        pytest.param(
            lambda data: _change(data, _after(data, b"general.architecture"), "<I", 13), "unknown type 13", id="type"
        ),
        pytest.param(
            lambda data: _change(data, _after(data, b"tokenizer.ggml.tokens") + 8, "<Q", 2**62),
            "cut short",
            id="many-tokens",
        ),
        pytest.param(
            lambda data: _change(data, _after(data, b"tokenizer.ggml.tokens") + 16, "<Q", 2**64 - 1),
            "cut short",
            id="long-token",
        ),
        pytest.param(
            lambda data: _change(data, _after(data, b"tokenizer.ggml.scores") + 8, "<Q", 2**62),
            "cut short",
            id="many-scores",
        ),
        pytest.param(
            lambda data: _change(data, _after(data, b"token_embd.weight"), "<I", 2**31), "axes", id="many-axes"
        ),
        pytest.param(lambda data: data[:-40], "its tensors end at byte", id="cut-in-the-weights"),
    ],
)
def test_damaged_file_is_a_readable_error(tmp_path: Path, damage: Callable[[bytes], bytes], why: str) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelLoadError, match=f"is not a whole GGUF file: .*({why}).*; fetch or convert it again"):
        read_header(path)


def test_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelLoadError, match="not a whole GGUF file"):
            read_header(path)


def test_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", keys={"aaaa": 1, "bbbb": 2})
    path.write_bytes(path.read_bytes().replace(b"bert.bbbb", b"bert.aaaa"))
    with pytest.raises(ModelLoadError, match=r"'bert.aaaa' stands in it twice"):
        read_header(path)


def test_directory_is_a_readable_error(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot be read: Is a directory"):
        read_header(tmp_path)

from __future__ import annotations

import threading
from pathlib import Path

import gguf
import numpy as np
import pytest

from cluster.errors import ModelLoadError
from cluster.models import body as module
from cluster.models.body import BodyProof, body_path, derive_body, read_proof, remember_proof, write_body
from cluster.models.convert import convert_bert
from cluster.models.fingerprint import gguf_sha256
from cluster.models.inspect import inspect_gguf
from tests.unit.models.tiny import VOCABULARY_SIZE, write_bert, write_gguf


@pytest.fixture
def original(tmp_path: Path) -> Path:
    write_bert(tmp_path / "bert")
    convert_bert(tmp_path / "bert", tmp_path / "m.gguf", "q8_0", name="tiny")
    return tmp_path / "m.gguf"


def _body_of(original: Path) -> tuple[gguf.GGUFReader, gguf.GGUFReader]:
    target = original.with_name("body.gguf")
    write_body(original, target)
    return gguf.GGUFReader(original), gguf.GGUFReader(target)


def test_tensors_are_the_original_s_but_for_a_table_of_one_row(original: Path) -> None:
    whole, body = _body_of(original)
    tensors = {tensor.name: tensor for tensor in body.tensors}
    assert [tensor.name for tensor in body.tensors] == [tensor.name for tensor in whole.tensors]
    assert len(tensors) > 1
    for tensor in whole.tensors:
        rows = 1 if tensor.name == "token_embd.weight" else len(tensor.data)
        assert tensors[tensor.name].tensor_type is tensor.tensor_type
        np.testing.assert_array_equal(tensors[tensor.name].data, tensor.data[:rows], err_msg=tensor.name)


def test_metadata_is_the_original_s_but_for_the_vocabulary(original: Path) -> None:
    whole, body = _body_of(original)

    def metadata(reader: gguf.GGUFReader) -> dict[str, object]:
        return {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}

    kept = {key: value for key, value in metadata(whole).items() if not key.startswith("tokenizer.")}
    assert metadata(body) == kept | {
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.model": "none",
        "bert.vocab_size": 1,
    }


def test_vocabulary_size_and_head_of_the_original_give_way(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen3")
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_vocab_size(7)
    random = np.random.default_rng(0)
    for name in ("token_embd.weight", "output_norm.weight", "output.weight"):
        writer.add_tensor(name, random.normal(size=(32,) if "norm" in name else (7, 32)).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _, body = _body_of(tmp_path / "m.gguf")
    assert body.fields["qwen3.vocab_size"].contents() == 1
    assert {tensor.name: tensor.data.shape for tensor in body.tensors} == {
        "token_embd.weight": (1, 32),
        "output_norm.weight": (32,),
        "output.weight": (1, 32),
    }


def test_body_is_inspected_as_the_same_model(original: Path) -> None:
    target = original.with_name("body.gguf")
    write_body(original, target)
    whole, body = inspect_gguf(original), inspect_gguf(target)
    assert (body.architecture, body.layers, body.dimensions) == (whole.architecture, whole.layers, whole.dimensions)
    assert (whole.vocabulary_size, body.vocabulary_size) == (VOCABULARY_SIZE, 1)


def test_body_is_derived_once_however_many_ask_at_once(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    real = module.write_body

    def counted(source: Path, target: Path) -> None:
        written.append(target)
        real(source, target)

    monkeypatch.setattr(module, "write_body", counted)
    sha256 = gguf_sha256(original)
    threads = [threading.Thread(target=derive_body, args=(original, sha256)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1
    assert [path.name for path in body_path(sha256).parent.glob("*.gguf")] == [f"{sha256}-v1.gguf"]
    assert derive_body(original, sha256) == body_path(sha256)


def test_one_of_several_parts_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "part.gguf", keys={"general.x": 1})
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_uint16("split.count", 3)
    writer.add_tensor("token_embd.weight", np.ones((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match="one of several parts; merge them"):
        derive_body(path, gguf_sha256(path))


def test_file_without_a_token_table_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "clip")
    writer.add_tensor("patch_embd.weight", np.ones((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match=r"no tensor token_embd\.weight"):
        derive_body(tmp_path / "m.gguf", "0" * 64)
    assert not list(body_path("0" * 64).parent.glob("*.gguf"))


def test_proof_is_remembered_for_one_version_of_the_library(original: Path) -> None:
    sha256 = gguf_sha256(original)
    derive_body(original, sha256)
    assert read_proof(sha256, "1.0") is None
    proof = BodyProof(holds=True, library="1.0", input_scale=8.0, largest_difference=0.0)
    remember_proof(sha256, proof)
    assert read_proof(sha256, "1.0") == proof
    assert read_proof(sha256, "1.1") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"holds": true}', '{"library": "1.0", "colour": 1}'])
def test_damaged_proof_counts_as_none(original: Path, content: str) -> None:
    sha256 = gguf_sha256(original)
    derive_body(original, sha256).with_suffix(".json").write_text(content, encoding="utf-8")
    assert read_proof(sha256, "1.0") is None

"""The headless body stands in for a GGUF only where its numbers are the original's to the bit."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest

from cluster.config import EncoderConfig
from cluster.engine import load_engine
from cluster.engine.llama import headless as module
from cluster.engine.llama import headless_body
from cluster.engine.llama.proof import prove
from cluster.models.body import body_path, read_proof, write_body
from cluster.models.fingerprint import gguf_sha256
from cluster.models.inspect import inspect_gguf
from cluster.types import Float32, PoolingType, offsets_of
from tests.model.test_reference_models import ALL

LENGTHS = [9, 30, 1, 17]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands of the processes that were started."""
    started: list[list[str]] = []
    real = subprocess.run

    def counted(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return real(command, **options)

    monkeypatch.setattr(module.subprocess, "run", counted)
    return started


def _encoded(path: Path, headless: str) -> list[Float32]:
    facts = inspect_gguf(path).facts()
    config = EncoderConfig.model_validate(
        {"model": "m", "headless": headless, "micro_batch_tokens": 64, "context_tokens": 64, "threads": 1}
    )
    pooling_types = [pooling for pooling in facts.pooling_types if pooling in (PoolingType.NONE, PoolingType.RANK)]
    engine = load_engine(config, path, facts, pooling_types)
    ids = np.random.default_rng(11).integers(0, facts.vocabulary_size, sum(LENGTHS), dtype=np.int32)
    try:
        numbers = [engine.encode(ids, offsets_of(LENGTHS))]
        if PoolingType.RANK in pooling_types:
            numbers.append(engine.score(ids, offsets_of(LENGTHS), np.full(len(LENGTHS), -1, dtype=np.int32)))
        return numbers
    finally:
        engine.close()


@pytest.mark.parametrize("half", [False, True], ids=["f32", "f16"])
@pytest.mark.parametrize("name", ALL)
def test_every_family_runs_headless_with_equal_numbers(name: str, half: bool, tmp_path: Path) -> None:
    path = ALL[name](tmp_path / "m.gguf", half=half).path
    whole, headless = _encoded(path, "off"), _encoded(path, "auto")
    proof = read_proof(gguf_sha256(path), llama_cpp.__version__)
    assert proof is not None
    assert proof.holds
    assert proof.largest_difference == 0.0
    assert proof.input_scale == (8.0 if name == "gemma-embedding" else 1.0)
    for ours, theirs in zip(headless, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_body_is_proved_once(tmp_path: Path, proofs: list[list[str]]) -> None:
    path = ALL["bert"](tmp_path / "m.gguf").path
    first, second = headless_body(path), headless_body(path)
    assert first is not None
    assert second is not None
    assert first[0] == second[0] == body_path(gguf_sha256(path))
    assert len(proofs) == 1


def test_off_derives_nothing(tmp_path: Path, cache: Path, proofs: list[list[str]]) -> None:
    _encoded(ALL["bert"](tmp_path / "m.gguf").path, "off")
    assert not proofs
    assert not (cache / "bodies").exists()


def test_body_with_another_weight_is_refuted(tmp_path: Path) -> None:
    path = ALL["qwen3-reranker"](tmp_path / "m.gguf").path
    body = tmp_path / "body.gguf"
    write_body(path, body)
    tensor = next(tensor for tensor in gguf.GGUFReader(body).tensors if tensor.name == "output_norm.weight")
    data = bytearray(body.read_bytes())
    weight = np.frombuffer(data, dtype=np.float32, count=1, offset=tensor.data_offset)
    weight += np.float32(1e-3)
    body.write_bytes(data)
    proof = prove(path, body)
    assert not proof.holds
    assert proof.largest_difference is not None
    assert proof.largest_difference > 0.0
    assert "differ from the original's by up to" in proof.reason


def _one_of_several_parts(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_uint16("split.count", 2)
    writer.add_tensor("token_embd.weight", np.ones((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_file_without_a_body_runs_whole_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _one_of_several_parts(tmp_path / "m.gguf")
    with caplog.at_level(logging.WARNING):
        assert headless_body(tmp_path / "m.gguf") is None
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("m.gguf runs with its vocabulary's head, which costs time and memory: ")
    assert "is one of several parts" in message


@pytest.mark.parametrize(("signal", "remembered"), [("ABRT", True), ("KILL", False)])
def test_graph_that_ends_the_process_runs_whole(
    signal: str,
    remembered: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = ALL["bert"](tmp_path / "m.gguf").path
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\nkill -{signal} $$\n", encoding="utf-8")
    dying.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(dying))
    assert headless_body(path) is None
    assert "the proof of its body ended with status -" in caplog.text
    assert not body_path(gguf_sha256(path)).exists()
    known = read_proof(gguf_sha256(path), llama_cpp.__version__)
    # A process that was killed from outside says nothing of the graph.
    assert (known is not None) is remembered


def test_graph_that_ends_the_process_only_once_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As an allocation that failed: the second try ends in another way.
    path = ALL["bert"](tmp_path / "m.gguf").path
    dying = tmp_path / "python"
    mark = tmp_path / "aborted"
    dying.write_text(f"#!/bin/sh\n[ -e {mark} ] && exit 1\ntouch {mark}\nkill -ABRT $$\n", encoding="utf-8")
    dying.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(dying))
    assert headless_body(path) is None
    assert mark.exists()
    assert read_proof(gguf_sha256(path), llama_cpp.__version__) is None


def test_cache_that_cannot_be_written_to_means_the_whole_file(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = ALL["bert"](tmp_path / "m.gguf").path
    gguf_sha256(path)
    (cache / "bodies").write_text("in the way", encoding="utf-8")
    assert headless_body(path) is None
    assert "the cache directory cannot be written to" in caplog.text


def test_lost_body_is_derived_again_without_a_proof(tmp_path: Path, proofs: list[list[str]]) -> None:
    path = ALL["bert"](tmp_path / "m.gguf").path
    first = headless_body(path)
    assert first is not None
    first[0].unlink()
    again = headless_body(path)
    assert again is not None
    assert again[0].is_file()
    assert len(proofs) == 1

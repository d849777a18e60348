from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cluster.config import ModelConfig
from cluster.errors import ModelLoadError
from cluster.models import fingerprint as module
from cluster.models.fingerprint import fingerprint, gguf_sha256

_DATA = b"weights" * 1_000
_DIGEST = hashlib.sha256(_DATA).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(_DATA)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read through."""
    seen: list[Path] = []
    real = module._sha256

    def counted(path: Path) -> str:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(module, "_sha256", counted)
    return seen


def test_digest_is_the_file_s_and_is_remembered(file: Path, reads: list[Path]) -> None:
    assert gguf_sha256(file) == _DIGEST
    assert gguf_sha256(file) == _DIGEST
    assert reads == [file]


@pytest.mark.parametrize("changed", ["size", "time"])
def test_changed_file_is_read_again(file: Path, reads: list[Path], changed: str) -> None:
    gguf_sha256(file)
    facts = file.stat()
    fresh = _DATA + b"!" if changed == "size" else _DATA[::-1]
    file.write_bytes(fresh)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns + (changed == "time")))
    assert gguf_sha256(file) == hashlib.sha256(fresh).hexdigest()
    assert len(reads) == 2


def test_one_file_under_two_names_is_read_once(file: Path, tmp_path: Path, reads: list[Path]) -> None:
    (tmp_path / "link.gguf").symlink_to(file)
    assert gguf_sha256(file) == gguf_sha256(tmp_path / "link.gguf")
    assert len(reads) == 1


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b'"text"', b""])
def test_damaged_ledger_is_made_anew(file: Path, cache: Path, reads: list[Path], content: bytes) -> None:
    cache.mkdir()
    (cache / "sha256.json").write_bytes(content)
    assert gguf_sha256(file) == _DIGEST
    assert list(json.loads((cache / "sha256.json").read_bytes()).values()) == [_DIGEST]
    assert gguf_sha256(file) == _DIGEST
    assert len(reads) == 1


def test_digest_needs_no_writable_cache(
    file: Path, tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(file / "no" / "directory"))
    assert gguf_sha256(file) == _DIGEST
    assert gguf_sha256(file) == _DIGEST
    assert len(reads) == 2


def test_ledger_that_cannot_be_replaced_is_done_without(file: Path, cache: Path) -> None:
    (cache / "sha256.json" / "in the way").mkdir(parents=True)
    assert gguf_sha256(file) == _DIGEST
    assert not (cache / "sha256.new").exists()


def test_missing_file_is_a_readable_error(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"absent\.gguf cannot be read: No such file"):
        gguf_sha256(tmp_path / "absent.gguf")


def _print(**settings: Any) -> str:
    return fingerprint(_DIGEST, ModelConfig(**({"source": "m.gguf"} | settings)))


@pytest.mark.parametrize(
    "settings",
    [
        {"prompts": {"query": "query: "}},
        {"append_eos": True},
        {"append_eos": False},
        {"parse_special": True},
    ],
)
def test_settings_that_change_vectors_change_the_fingerprint(settings: dict[str, Any]) -> None:
    assert _print(**settings) != _print()


@pytest.mark.parametrize(
    "settings",
    [{"source": "elsewhere.gguf"}, {"aliases": ("other",)}, {"dimensions": (8, 16)}, {"default_pooling": "cls"}],
)
def test_other_settings_do_not(settings: dict[str, Any]) -> None:
    assert _print(**settings) == _print()


def test_fingerprint_is_16_digits_and_follows_the_file() -> None:
    one, other = (fingerprint(digest, ModelConfig(source="m.gguf")) for digest in ("a" * 64, "b" * 64))
    assert one != other
    assert len(one) == 16
    assert set(one) <= set("0123456789abcdef")


def test_weight_type_and_engine_are_part_of_the_fingerprint() -> None:
    model = ModelConfig(source="m.gguf")
    marks = {
        fingerprint(_DIGEST, model, weights=weights, engine=engine)
        for weights in ("f16", "q8_0", "f16+q8_0")
        for engine in ("llama", "fake")
    }
    assert len(marks) == 6


def test_order_of_prompts_does_not_matter() -> None:
    prompts = {"query": "q: ", "document": "d: "}
    assert _print(prompts=prompts) == _print(prompts=dict(reversed(prompts.items())))
    swapped = {"query": "d: ", "document": "q: "}
    assert _print(prompts=prompts) != _print(prompts=swapped)

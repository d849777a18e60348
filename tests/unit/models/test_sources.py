from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cluster.config import ModelConfig
from cluster.errors import ModelLoadError
from cluster.models.hub import HubSource
from cluster.models.package import PackageSource, packaged_path
from cluster.models.sources import FileSource, resolve, source_of


def _model(source: str, sha256: str | None = None) -> ModelConfig:
    return ModelConfig(source=source, sha256=sha256)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("package:all-minilm-l6-v2", PackageSource),
        ("hf://org/repo/m.gguf@main", HubSource),
        ("models/m.gguf", FileSource),
        ("/models/m.gguf", FileSource),
        ("odd:name.gguf", FileSource),
        ("package", FileSource),
    ],
)
def test_form_of_the_source_says_where_from(source: str, kind: type) -> None:
    assert type(source_of(_model(source))) is kind


@pytest.mark.parametrize("source", ["s3://bucket/m.gguf", "https://host/m.gguf", "hff://org/repo/m.gguf"])
def test_unknown_scheme_names_the_known_ones(source: str) -> None:
    with pytest.raises(ModelLoadError, match=r"unknown scheme .*give a path, hf://.* or package:NAME"):
        source_of(_model(source))


def test_unknown_package_names_the_nearest() -> None:
    with pytest.raises(ModelLoadError, match="did you mean 'all-minilm-l6-v2'"):
        source_of(_model("package:all-minilm-l6"))


@pytest.mark.parametrize(
    ("source", "repo", "file", "revision"),
    [
        ("hf://org/repo/m.gguf@v1.0", "org/repo", "m.gguf", "v1.0"),
        ("hf://org/repo/m.gguf", "org/repo", "m.gguf", "main"),
        ("hf://org/repo/deep/m.gguf@refs/pr/1", "org/repo", "deep/m.gguf", "refs/pr/1"),
        ("hf://_o-r.g_/Re_po-1.5/m.gguf", "_o-r.g_/Re_po-1.5", "m.gguf", "main"),
    ],
)
def test_hub_source_is_taken_apart(source: str, repo: str, file: str, revision: str) -> None:
    found = HubSource(source)
    assert (found.repo, found.file, found.revision) == (repo, file, revision)


@pytest.mark.parametrize(
    "source",
    [
        "hf://org/repo",
        "hf://org/m.gguf",
        "hf://org/repo/m.safetensors",
        "hf://org/repo/m.gguf@",
        "hf://org/repo/m.gguf@a@b",
        "hf:///repo/m.gguf",
        "hf://o rg/repo/m.gguf",
        "hf://-org/repo/m.gguf",
        "hf://org/re--po/m.gguf",
        "hf://org/../m.gguf",
        "hf://org/repo/../../m.gguf",
    ],
)
def test_hub_source_of_another_form_is_refused(source: str) -> None:
    with pytest.raises(ModelLoadError, match=r"is not of the form hf://org/repo/file\.gguf@revision"):
        HubSource(source)


def test_file_is_its_own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.gguf").touch()
    source = source_of(_model("~/m.gguf"))
    assert source.local_path() == source.fetch() == tmp_path / "m.gguf"


def test_missing_file_names_the_key_to_correct(tmp_path: Path) -> None:
    source = source_of(_model(str(tmp_path / "absent.gguf")))
    assert source.local_path() is None
    with pytest.raises(ModelLoadError, match=r"there is no file .*absent\.gguf; correct models\.….source"):
        source.fetch()


def test_directory_is_no_file(tmp_path: Path) -> None:
    assert source_of(_model(str(tmp_path))).local_path() is None


def test_unknown_home_directory_is_a_readable_error() -> None:
    with pytest.raises(ModelLoadError, match="has no home directory"):
        source_of(_model("~no-such-user-here/m.gguf"))


def test_digest_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert resolve(_model(str(path))) == path
    assert resolve(_model(str(path), digest)) == path
    with pytest.raises(ModelLoadError, match=f"has SHA-256 {digest} and the configuration says {'0' * 64}"):
        resolve(_model(str(path), "0" * 64))
    assert path.exists()


def test_packaged_model_is_local_once_it_is_made(cache: Path) -> None:
    source = source_of(_model("package:all-minilm-l6-v2"))
    assert source.local_path() is None
    path = packaged_path("all-minilm-l6-v2", "f16")
    assert path.parent == cache
    path.touch()
    assert source.local_path() == source.fetch() == path

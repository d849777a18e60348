from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from cluster.config import ModelConfig
from cluster.errors import ModelLoadError
from cluster.models import inspect_gguf, package
from cluster.models.package import PackagedModel, PackageSource
from cluster.types import PoolingType
from tests.unit.models.tiny import write_bert

_FOLDER = "tiny_bert/model"
_METADATA = "Metadata-Version: 2.1\nName: tiny-bert\nVersion: 1.0\nRequires-Dist: not-on-any-index\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture(autouse=True)
def only_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip looks into this folder and nowhere else."""
    links = tmp_path / "links"
    links.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {"NO_INDEX": "1", "FIND_LINKS": str(links), "CONFIG_FILE": os.devnull, "NO_CACHE_DIR": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return links


def _write_wheel(links: Path, *, without: str = "") -> Path:
    """A wheel with a tiny BERT in it, which requires a package that does not exist."""
    folder = links.parent / "bert"
    write_bert(folder, pooling={"pooling_mode_mean_tokens": True})
    wheel = links / "tiny_bert-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder).as_posix()
            if file.is_file() and name != without:
                archive.write(file, f"{_FOLDER}/{name}")
        archive.writestr("tiny_bert-1.0.dist-info/METADATA", _METADATA)
        archive.writestr("tiny_bert-1.0.dist-info/WHEEL", _WHEEL)
        archive.writestr("tiny_bert-1.0.dist-info/RECORD", "")
    return wheel


def _source(monkeypatch: pytest.MonkeyPatch, sha256: str, quantisation: str = "f16") -> PackageSource:
    model = PackagedModel(requirement="tiny-bert==1.0", wheel_sha256=sha256, folder=_FOLDER)
    monkeypatch.setitem(package.PACKAGED_MODELS, "tiny", model)
    return PackageSource("tiny", ModelConfig(source="package:tiny", quantisation=quantisation))  # type: ignore[arg-type]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _left(cache: Path) -> list[str]:
    return sorted(entry.name for entry in cache.iterdir() if not entry.name.endswith(".lock"))


def test_wheel_becomes_a_gguf_without_its_dependencies(
    only_this_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = _write_wheel(only_this_folder)
    source = _source(monkeypatch, _sha256(wheel))
    path = source.fetch()
    report = inspect_gguf(path)
    assert (report.name, report.trained_pooling, report.quantisation) == ("tiny", PoolingType.MEAN, "f16")
    assert _left(cache) == ["tiny-f16.gguf"]
    assert "downloading tiny-bert==1.0" in capsys.readouterr().err
    # From now on neither pip nor the wheel is needed.
    wheel.unlink()
    assert source.fetch() == source.local_path() == path


def test_wheel_with_another_digest_is_not_used(
    only_this_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _sha256(_write_wheel(only_this_folder))
    with pytest.raises(ModelLoadError, match=f"has SHA-256 {digest} and should have {'0' * 64}; it was not used"):
        _source(monkeypatch, "0" * 64).fetch()
    assert _left(cache) == []


def test_failing_pip_is_quoted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelLoadError) as caught:
        _source(monkeypatch, "0" * 64).fetch()
    assert caught.value.message.startswith("pip cannot download tiny-bert==1.0: ")
    assert "No matching distribution found for tiny-bert==1.0" in caught.value.message
    assert caught.value.message.endswith("or set source to the path of a GGUF file")
    assert _left(cache) == []


def test_missing_pip_is_quoted(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(package.sys, "executable", str(python))
    with pytest.raises(ModelLoadError, match=r"pip cannot download tiny-bert==1\.0: No module named pip"):
        _source(monkeypatch, "0" * 64).fetch()
    assert _left(cache) == []


def test_wheel_without_a_file_of_the_model_names_it(
    only_this_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _sha256(_write_wheel(only_this_folder, without="vocab.txt"))
    with pytest.raises(ModelLoadError, match=r"has no tiny_bert/model/vocab\.txt"):
        _source(monkeypatch, digest).fetch()
    assert _left(cache) == []


def test_each_quantisation_is_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert package.packaged_path("tiny", "f16") != package.packaged_path("tiny", "q8_0")


def test_unknown_name_lists_the_packaged_models() -> None:
    with pytest.raises(ModelLoadError, match="there is no packaged model 'x'; packaged: all-minilm-l6-v2"):
        PackageSource("x", ModelConfig(source="package:x"))

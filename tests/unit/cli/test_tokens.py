from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest

from cluster.cli import tokens as command
from cluster.errors import InvalidRequest
from cluster.evaluation.local import LocalModel


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(required=True), "help")
    options = parser.parse_args(["tokens", *arguments])
    return int(options.run(options))


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalModel, "load", lambda config, threads: LocalModel.fake())


def test_the_table_has_a_line_for_each_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("one two") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["token", "id", "norm", "mean", "cls", "last"]
    assert [line.split()[1] for line in lines[1:]] == ["[CLS]", "one", "two", "[SEP]"]


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one two\n"))
    assert run("-", "--json") == 0
    assert json.loads(capsys.readouterr().out)["text"] == "one two"


def test_the_picture_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tokens.png"
    assert run("one two", "--png", str(file)) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert str(file) in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_comes_after_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidRequest, match="cannot be written"):
        run("one two", "--png", str(tmp_path / "none" / "tokens.png"))
    assert "[SEP]" in capsys.readouterr().out

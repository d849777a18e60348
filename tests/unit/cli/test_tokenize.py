from __future__ import annotations

import io
import json

import pytest

from cluster.cli.main import main
from tests.support.pipelines import ids_of

pytestmark = pytest.mark.usefixtures("local_fake")


@pytest.mark.parametrize("remote", [False, True])
def test_ids_are_those_that_are_encoded(remote: bool, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--url", url] if remote else []
    assert main(["tokenize", "--ids", "one two", *place]) == 0
    assert [int(token_id) for token_id in capsys.readouterr().out.split()] == ids_of("one two").tolist()
    assert main(["tokenize", "--ids", "--no-special", "one two", *place]) == 0
    assert [int(token_id) for token_id in capsys.readouterr().out.split()] == ids_of("one two").tolist()[1:-1]


def test_every_token_has_a_line_with_its_piece(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenize", "one two"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["[CLS]", "one", "two", "[SEP]"]


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n"))
    assert main(["tokenize", "--json", "-"]) == 0
    assert [token["piece"] for token in json.loads(capsys.readouterr().out)] == ["[CLS]", "one", "[SEP]"]

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from cluster.cli.main import main
from cluster.types import PoolingType
from tests.support.pipelines import expected_rows

pytestmark = pytest.mark.usefixtures("local_fake")


@pytest.mark.parametrize("remote", [False, True])
def test_two_texts_give_one_cosine(remote: bool, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--url", url] if remote else []
    assert main(["similarity", "--pooling", "cls", "one two", "three", *place]) == 0
    first, second = (expected_rows(text, PoolingType.CLS)[0] for text in ("one two", "three"))
    assert float(capsys.readouterr().out) == pytest.approx(float(first @ second), abs=1e-4)


def test_more_texts_give_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nthree\n"))
    assert main(["similarity", "one", "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["one", "two", "three"]
    assert [float(line.split()[number]) for number, line in enumerate(lines[1:], 1)] == [1.0, 1.0, 1.0]


def test_json_has_all_cosines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similarity", "--json", "one", "two", "one"]) == 0
    cosines = np.asarray(json.loads(capsys.readouterr().out)["cosine"])
    assert cosines.shape == (3, 3)
    assert cosines[0, 2] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("texts", "fault"),
    [(["one"], "give two or more"), (["one", " "], "text 2 is empty"), (["one", "word " * 600], "text 2: ")],
)
def test_texts_that_cannot_be_compared_are_named(
    texts: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["similarity", *texts]) == 2
    assert fault in capsys.readouterr().err

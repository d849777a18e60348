from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from cluster.types import PoolingType
from tests.support.pipelines import DIMENSIONS, expected_rows

Embed = Callable[..., int]
TEXTS = ["one", "two three", "four five six"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    return path


def vectors_of(texts: list[str], pooling: PoolingType = PoolingType.MEAN) -> np.ndarray:
    return np.concatenate([expected_rows(text, pooling) for text in texts])


@pytest.mark.parametrize("place", ["--local", "--url"])
def test_jsonl_goes_to_standard_output(
    embed: Embed, texts: Path, url: str, place: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert embed(texts, *(["--url", url] if place == "--url" else ["--local"])) == 0
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3]
    np.testing.assert_allclose([row["embedding"] for row in rows], vectors_of(TEXTS), atol=1e-6)


def test_standard_input_is_read(
    embed: Embed, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\n")))
    assert embed("--pooling", "last") == 0
    row = json.loads(capfdbinary.readouterr().out)
    np.testing.assert_allclose(row["embedding"], vectors_of(["one"], PoolingType.LAST)[0], atol=1e-6)


def test_every_record_has_a_row_in_every_format(embed: Embed, tmp_path: Path, url: str) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b"id,text\n7,one\n8,\n9,two three\n")
    for name in ("out.jsonl", "out.parquet", "out.npy"):
        keep = [] if name.endswith("npy") else ["--keep", "id"]
        assert embed(source, "--output", tmp_path / name, "--url", url, "--quiet", *keep) == 1
    good = vectors_of(["one", "two three"])
    array = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(array[[0, 2]], good, atol=1e-6)
    assert np.isnan(array[1]).all()
    printed = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    for rows in (printed, table):
        assert [(row["line"], row["id"]) for row in rows] == [(2, "7"), (3, "8"), (4, "9")]
        assert rows[1]["embedding"] is None
        np.testing.assert_allclose([rows[0]["embedding"], rows[2]["embedding"]], good, atol=1e-6)


def test_token_vectors_have_offsets(embed: Embed, texts: Path, tmp_path: Path) -> None:
    assert embed(texts, "--pooling", "none", "--output", tmp_path / "out.npy", "--quiet") == 0
    assert embed(texts, "--pooling", "none", "--output", tmp_path / "out.parquet", "--quiet") == 0
    values, offsets = np.load(tmp_path / "out.npy"), np.load(tmp_path / "out.offsets.npy")
    assert offsets.tolist() == [0, 3, 7, 12]
    np.testing.assert_allclose(values, vectors_of(TEXTS, PoolingType.NONE), atol=1e-6)
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [len(row["embedding"]) for row in table] == [3, 4, 5]


def test_kept_columns_keep_their_types_or_become_text(embed: Embed, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    rows = [
        {"text": "a", "n": 1, "x": 1, "b": True, "m": 1, "big": 2**63},
        {"text": "b", "n": None, "x": 0.5, "b": False, "m": "two", "big": 1},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert embed(source, "--keep", "n,x,b,m,big", "--output", tmp_path / "out.parquet", "--quiet") == 0
    table = parquet.read_table(tmp_path / "out.parquet")
    assert [str(table.schema.field(name).type) for name in ("n", "x", "b", "m", "big")] == [
        *("int64", "double", "bool", "string", "string")
    ]
    assert table.column("m").to_pylist() == ["1", "two"]


def test_options_reach_the_vectors(embed: Embed, texts: Path, tmp_path: Path, url: str) -> None:
    options = ("--prompt", "query: ", "--dimensions", 4, "--pooling", "cls")
    for name, place in (("a.npy", ["--local"]), ("b.npy", ["--url", url])):
        assert embed(texts, "--output", tmp_path / name, "--quiet", *options, *place) == 0
    first, second = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    np.testing.assert_allclose(first, second, atol=1e-6)
    wide = np.concatenate([expected_rows(f"query: {text}", PoolingType.CLS) for text in TEXTS])[:, :4]
    np.testing.assert_allclose(first, wide / np.linalg.norm(wide, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("place", ["--local", "--url"])
def test_bad_lines_are_reported_and_do_not_end_the_run(
    embed: Embed, tmp_path: Path, url: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.txt"
    long_line = b"word " * 1_000_000
    source.write_bytes(b"good\n\nna\xefve\n" + long_line + b"\ngood too\n\n")
    output = tmp_path / "out.npy"
    assert embed(source, "--output", output, *(["--url", url] if place == "--url" else ["--local"])) == 1
    faults = [json.loads(line) for line in (tmp_path / "out.npy.errors.jsonl").read_text().splitlines()]
    assert [fault["line"] for fault in faults] == [2, 3, 4, 6]
    assert faults[2]["error"].startswith("the text has 1000002 tokens and the model takes 512")
    shown = capsys.readouterr().err
    assert f"{source}, line 4: the text has 1000002 tokens" in shown
    assert "6 lines: 2 embedded, 4 bad" in shown
    assert np.isnan(np.load(output)).any(axis=1).tolist() == [False, True, True, True, False, True]


def test_many_bad_lines_are_not_all_shown(embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.txt"
    source.write_bytes(b"\n" * 30)
    assert embed(source, "--output", tmp_path / "out.jsonl") == 1
    shown = capsys.readouterr().err
    assert "line 20:" in shown
    assert "line 21:" not in shown
    assert "further bad lines are not shown here; all are written to" in shown
    assert len((tmp_path / "out.jsonl.errors.jsonl").read_text().splitlines()) == 30


def test_bad_lines_of_standard_output_go_where_they_are_asked(
    embed: Embed, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    source = tmp_path / "in.txt"
    source.write_bytes(b"one\n\n")
    assert embed(source, "--errors", tmp_path / "bad.jsonl") == 1
    assert json.loads((tmp_path / "bad.jsonl").read_text()) == {"line": 2, "error": "the line is empty"}
    assert [json.loads(line)["line"] for line in capfdbinary.readouterr().out.splitlines()] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--output", "out.xyz"), "names no format"),
        (("--output", "nowhere/out.npy"), "there is no directory"),
        (("--output", "."), "is not a file"),
        (("--output", "/dev/null", "--output-format", "npy"), "is not a file"),
        (("--output-format", "parquet"), "cannot go to standard output"),
        (("--restart",), "are for a file"),
        (("--input-type", "query"), "--input-type is for a server"),
        (("--in-flight", "2"), "--in-flight is for a server"),
        (("--delimiter", "ab"), "give one character"),
        (("--dimensions", "99"), "the model has 16"),
        (("--keep", "a", "--output", "out.npy"), "no room for the columns"),
        (("--keep", "line"), "in the output twice"),
        (("--url", "http://127.0.0.1:1", "--threads", "2"), "for a local model"),
    ],
)
def test_arguments_that_cannot_be_are_refused_in_a_sentence(
    embed: Embed, texts: Path, arguments: tuple[str, ...], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(texts, *arguments) == 2
    assert fault in capsys.readouterr().err


def test_an_output_that_exists_is_not_overwritten_unasked(
    embed: Embed, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.npy"
    output.write_bytes(b"precious")
    assert embed(texts, "--output", output) == 2
    assert "--overwrite to replace it" in capsys.readouterr().err
    assert output.read_bytes() == b"precious"
    assert embed(texts, "--output", output, "--overwrite", "--quiet") == 0
    assert np.load(output).shape == (3, DIMENSIONS)


def test_an_empty_file_gives_an_empty_output(embed: Embed, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.touch()
    assert embed(source, "--output", tmp_path / "out.jsonl", "--quiet") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.jsonl"]

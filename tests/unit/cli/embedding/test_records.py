from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from cluster.cli.embedding import lines
from cluster.cli.embedding.inputs import InputFormat, InputOptions, open_input
from cluster.cli.embedding.records import Record
from cluster.errors import InvalidRequest


def read(tmp_path: Path, name: str, content: bytes, **options: Any) -> list[Record]:
    path = tmp_path / name
    path.write_bytes(content)
    with open_input(str(path), InputOptions(**options)) as source:
        return list(source.records())


def found(records: list[Record]) -> list[tuple[int, str]]:
    return [(record.line, record.fault or record.text) for record in records]


def test_every_line_of_a_text_file_is_a_record_and_bad_ones_say_why(tmp_path: Path) -> None:
    records = read(tmp_path, "a.txt", b"\xef\xbb\xbfone\r\n\n  \nna\xefve\n\xc3\xa9t\xc3\xa9")
    assert found(records) == [
        (1, "one"),
        (2, "the line is empty"),
        (3, "the line is empty"),
        (4, "byte 3 (0xef) is not UTF-8; convert the line to UTF-8"),
        (5, "été"),
    ]
    assert records[-1].position == 23


def test_a_line_beyond_the_limit_is_read_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE_BYTES", 10)
    monkeypatch.setattr(lines, "_DRAIN_BYTES", 4)
    records = read(tmp_path, "a.txt", b"0123456789\n0123456789\r\n" + b"x" * 99 + b"\nlast\n")
    assert found(records)[:2] == [(1, "0123456789"), (2, "0123456789")]
    assert (records[2].fault or "").startswith("100 bytes; a line may have 10")
    assert found(records)[3:] == [(4, "last")]


def test_a_csv_record_knows_the_line_it_begins_on(tmp_path: Path) -> None:
    content = b'id,text\n1,"a, b"\n2,"two\nlines"\n3,\xff\n4,\n\n5,a,b\n6\n"7" x,a\n8,last\n'
    records = read(tmp_path, "a.csv", content, keep=("id",))
    assert found(records) == [
        (2, "a, b"),
        (3, "two\nlines"),
        (5, "text: byte 1 (0xff) is not UTF-8; convert the line to UTF-8"),
        (6, "text is empty"),
        (7, "the line is empty"),
        (8, "3 fields, and there are 2 columns; put a field that has the delimiter in it into double quotes"),
        (9, "text is missing"),
        (10, "',' expected after '\"'; check the quotes from this line on"),
        (11, "last"),
    ]
    assert [record.kept.get("id") for record in records] == ["1", "2", "3", "4", None, None, "6", None, "8"]


def test_a_quote_that_never_closes_is_one_bad_record(tmp_path: Path) -> None:
    records = read(tmp_path, "a.csv", b'text\ngood\n"never\nends\n')
    assert found(records) == [(2, "good"), (3, "unexpected end of data; check the quotes from this line on")]


def test_csv_without_a_header_numbers_its_columns(tmp_path: Path) -> None:
    records = read(tmp_path, "a.csv", b"1;one\n2;two\n", column="2", keep=("1",), delimiter=";", header=False)
    assert found(records) == [(1, "one"), (2, "two")]
    assert records[1].kept == {"1": "2"}


def test_quotes_are_text_in_a_tsv(tmp_path: Path) -> None:
    assert found(read(tmp_path, "a.tsv", b'text\tid\n"half\t1\n')) == [(2, '"half')]


def test_jsonl_takes_objects_and_strings(tmp_path: Path) -> None:
    content = b'{"text": "one", "n": 1}\n"bare"\n{"n": 2}\n{"text": null}\n{"text": 3}\n[]\n{"text": \n\n\xff\n'
    records = read(tmp_path, "a.jsonl", content)
    assert [record.line for record in records] == list(range(1, 10))
    assert [record.text for record in records[:2]] == ["one", "bare"]
    expected = (
        "text is missing",
        "text is null",
        "text is of type int",
        "of type list",
        "not JSON",
        "empty",
        "not UTF-8",
    )
    for record, fault in zip(records[2:], expected, strict=True):
        assert fault in (record.fault or "")


def test_parquet_rows_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", None, "three"], "id": [1, 2, 3]}), path)
    with open_input(str(path), InputOptions(keep=("id",))) as source:
        assert (source.total, source.noun) == (3, "row")
        records = list(source.records())
    assert found(records) == [(1, "one"), (2, "text is null; a text was expected"), (3, "three")]
    assert records[2].kept == {"id": 3}


def test_standard_input_is_text_unless_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n')))
    with open_input("-", InputOptions(format=InputFormat.JSONL)) as source:
        assert found(list(source.records())) == [(1, "a")]


@pytest.mark.parametrize(
    ("name", "content", "options", "fault"),
    [
        ("a.csv", b"txt,id\na,1\n", {"column": "text"}, r"no column 'text' \(did you mean 'txt'\?\)"),
        ("a.csv", b"x,y\na,1\n", {}, "say with --column"),
        ("a.csv", b"text\na\n", {"keep": ("id",)}, "correct --keep"),
        ("a.csv", b"", {}, "no line that names its columns"),
        ("a.jsonl", b'{"txt": "a"}\n', {"column": "text"}, "no column 'text'"),
        ("a.txt", b"a\n", {"column": "text"}, "a text file has no columns"),
        ("a.txt", b"\xff\xfea\x00", {}, "is UTF-16"),
        ("a.tsv", b"text\na\n", {"delimiter": ";"}, "--delimiter is for CSV"),
        ("a.jsonl", b"{}\n", {"header": False}, "--no-header is for CSV"),
        ("a.parquet", b"no", {}, "cannot be read as Parquet"),
    ],
)
def test_an_input_that_is_wrong_as_a_whole_is_refused(
    tmp_path: Path, name: str, content: bytes, options: dict[str, Any], fault: str
) -> None:
    with pytest.raises(InvalidRequest, match=fault):
        read(tmp_path, name, content, **options)


def test_a_column_of_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": [1, 2]}), path)
    with pytest.raises(InvalidRequest, match="of type int64"), open_input(str(path), InputOptions()):
        pass


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidRequest, match="cannot be read: No such file"),
        open_input(str(tmp_path / "a.txt"), InputOptions()),
    ):
        pass

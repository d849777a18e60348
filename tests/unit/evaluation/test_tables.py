from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import InvalidRequest
from cluster.evaluation.tables import FieldFault, Row, find_column, number_field, read_table, text_field

KNOWN = ("text", "label")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_know_the_line_they_begin_at(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\n"two\nlines",x\n\nlast,y\n')
    table = read_table(path, KNOWN)
    assert [(row.line, row.fields["text"]) for row in table.rows] == [(2, "two\nlines"), (5, "last")]


def test_a_table_without_a_known_name_and_with_a_number_has_no_header(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.csv", "one,two,3.5\n"), KNOWN)
    assert not table.header
    assert table.columns == ("0", "1", "2")


def test_tabs_separate_and_quotes_mean_nothing_in_tsv(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.tsv", 'text\tlabel\n"open quote\tx\n'), KNOWN)
    assert table.rows[0].fields == {"text": '"open quote', "label": "x"}


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "a.csv", b"\xef\xbb\xbftext,label\na,b\n"), KNOWN).columns == ("text", "label")


def test_jsonl_keeps_separators_that_json_allows_in_strings(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a\u2028b"}\n\n{"text": "c"}\n')
    assert [(row.line, row.fields["text"]) for row in read_table(path, KNOWN).rows] == [(1, "a\u2028b"), (3, "c")]


def test_bytes_that_are_not_utf8_name_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"text,label\nfine,x\ncaf\xe9,y\n")
    with pytest.raises(InvalidRequest, match=r"line 3: byte 0xe9 is not UTF-8"):
        read_table(path, KNOWN)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InvalidRequest, match="is empty"):
        read_table(write(tmp_path, "a.csv", content), KNOWN)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_table(tmp_path / "none.csv", KNOWN)


@pytest.mark.parametrize(
    ("content", "fault"), [('{"a": 1}\nnot json\n', "line 2: not JSON"), ("[1]\n", "line 1: a JSON")]
)
def test_a_line_that_is_no_json_object_is_named(tmp_path: Path, content: str, fault: str) -> None:
    with pytest.raises(InvalidRequest, match=fault):
        read_table(write(tmp_path, "a.jsonl", content), KNOWN)


def test_a_field_of_five_megabytes_is_read(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.csv", f"text,label\n{'x' * 5_000_000},y\n"), KNOWN)
    assert len(str(table.rows[0].fields["text"])) == 5_000_000


def test_a_row_with_more_fields_than_columns_is_at_fault(tmp_path: Path) -> None:
    row = read_table(write(tmp_path, "a.csv", "text,label\nno, quotes,x\n"), KNOWN).rows[0]
    with pytest.raises(FieldFault, match="3 fields in a table of 2 columns"):
        text_field(row, "text")


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.csv", "txet,label\na,b\n"), KNOWN)
    with pytest.raises(InvalidRequest, match=r"no column for the text \(did you mean 'txet'\?\)"):
        find_column(table, "text", ("text", "sentence"))


def test_columns_are_found_in_any_case(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.csv", "Sentence, LABEL\na,b\n"), KNOWN)
    assert find_column(table, "label", ("label",)) == " LABEL"


@pytest.mark.parametrize("value", ["high", "nan", "inf", " "])
def test_a_field_that_is_no_finite_number_is_at_fault(value: str) -> None:
    with pytest.raises(FieldFault, match="score is"):
        number_field(Row(1, {"score": value}), "score")

"""CSV, TSV and JSONL files → rows of named fields that know their line, so that a fault can be found in an editor."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import InvalidRequest, nearest

_FAULTS_SHOWN = 5
_LARGEST_FIELD_CHARACTERS = 1 << 30


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line in the file (from 1, where the row begins), its fields, and what is wrong with the whole of it."""

    line: int
    fields: Mapping[str, object]
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A file's rows.

    Attributes:
        columns: names in the file's order; ``"0"``, ``"1"`` … where the file has no header.
        header: whether the first line names the columns. JSONL always does.
    """

    path: Path
    columns: tuple[str, ...]
    header: bool
    rows: list[Row]


class FieldFault(ValueError):
    """A field of one row cannot be used; the message says why, without the line."""


def read_table(path: Path, known_columns: Sequence[str]) -> Table:
    """Read a ``.csv``, ``.tsv`` or ``.jsonl`` file.

    Args:
        known_columns: the first line of a CSV or TSV is a header if it has one of these names, or no number at all.

    Raises:
        InvalidRequest: the file cannot be read, is not UTF-8, is empty, or is not of its format.
    """
    text = _read_text(path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return _read_jsonl(path, text)
    return _read_delimited(path, text, known_columns)


def find_column(table: Table, role: str, aliases: Sequence[str]) -> str:
    """Return the name of the column that holds ``role``, in any case, under any of its ``aliases``.

    Raises:
        InvalidRequest: there is none; names the nearest.
    """
    by_lower = {column.strip().lower(): column for column in table.columns}
    for alias in aliases:
        if alias in by_lower:
            return by_lower[alias]
    guess = next((hint for alias in aliases if (hint := nearest(alias, by_lower))), "")
    raise InvalidRequest(
        f"{table.path} has no column for the {role}{guess}; name it {', '.join(aliases)}. "
        f"Its columns: {', '.join(table.columns)}"
    )


def text_field(row: Row, column: str) -> str:
    """Return a field that must hold text.

    Raises:
        FieldFault: it is missing or empty.
    """
    if row.fault is not None:
        raise FieldFault(row.fault)
    value = row.fields.get(column)
    if value is None:
        raise FieldFault(f"{column} is missing")
    text = str(value)
    if not text.strip():
        raise FieldFault(f"{column} is empty")
    return text


def number_field(row: Row, column: str) -> float:
    """Return a field that must hold a finite number.

    Raises:
        FieldFault: it does not.
    """
    text = text_field(row, column)
    try:
        number = float(text)
    except ValueError:
        raise FieldFault(f"{column} is {text[:40]!r}, not a number") from None
    if not math.isfinite(number):
        raise FieldFault(f"{column} is {text[:40]!r}, not a finite number")
    return number


class FaultLog:
    """Collects the faults of a file's rows, so that all can be mended at once."""

    def __init__(self, path: Path, skip: bool) -> None:
        self._path = path
        self._skip = skip
        self.faults: list[str] = []

    def add(self, line: int, fault: FieldFault) -> None:
        """Note the fault of one row."""
        self.faults.append(f"line {line}: {fault}")

    def close(self, good_rows: int) -> list[str]:
        """Return the faults of the rows that were left out, each with the file's name.

        Raises:
            InvalidRequest: there are faults and they are not to be skipped, or no row is left.
        """
        shown = "\n".join(f"  {fault}" for fault in self.faults[:_FAULTS_SHOWN])
        more = len(self.faults) - _FAULTS_SHOWN
        if more > 0:
            shown += f"\n  and {more} more"
        if self.faults and not self._skip:
            raise InvalidRequest(
                f"{self._path} has {len(self.faults)} row(s) that cannot be used; "
                f"mend them, or leave them out with --skip-bad-rows:\n{shown}"
            )
        if not good_rows:
            raise InvalidRequest(f"{self._path} has no usable row" + (f":\n{shown}" if shown else ""))
        return [f"{self._path}: {fault}" for fault in self.faults]


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}; correct the path") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidRequest(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8; save the whole file as UTF-8"
        ) from error
    if not text.strip():
        raise InvalidRequest(f"{path} is empty")
    return text


def _read_jsonl(path: Path, text: str) -> Table:
    rows: list[Row] = []
    columns: dict[str, None] = {}
    # Not splitlines(): that also cuts at characters that JSON allows within a string.
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            fields = json.loads(content)
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"{path}, line {line}: not JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(fields, dict):
            raise InvalidRequest(f"{path}, line {line}: a JSON object was expected, this is a {type(fields).__name__}")
        columns.update(dict.fromkeys(fields))
        rows.append(Row(line, fields))
    return Table(path, tuple(columns), True, rows)


def _read_delimited(path: Path, text: str, known_columns: Sequence[str]) -> Table:
    csv.field_size_limit(_LARGEST_FIELD_CHARACTERS)
    tabs = path.suffix.lower() in (".tsv", ".tab") or "\t" in text.partition("\n")[0]
    # TSV files of this field (BEIR, TREC) put quotes into texts without meaning anything by it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if tabs else ",", quoting=3 if tabs else 0)
    begins: list[int] = []
    records: list[list[str]] = []
    begin = 1
    try:
        for record in reader:
            if any(field.strip() for field in record):
                begins.append(begin)
                records.append(record)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InvalidRequest(f"{path}, line {reader.line_num}: {error}; check its quotes") from error
    header = _is_header(records[0], known_columns)
    columns = tuple(records[0]) if header else tuple(str(column) for column in range(len(records[0])))
    rows = [
        Row(line, dict(zip(columns, record, strict=False)), _width_fault(len(record), len(columns)))
        for line, record in zip(begins[header:], records[header:], strict=True)
    ]
    return Table(path, columns, header, rows)


def _width_fault(fields: int, columns: int) -> str | None:
    if fields <= columns:
        return None
    return (
        f"{fields} fields in a table of {columns} columns; put a field that has the delimiter in it into double quotes"
    )


def _is_header(first: Sequence[str], known_columns: Sequence[str]) -> bool:
    if {field.strip().lower() for field in first} & set(known_columns):
        return True
    return not any(_is_number(field) for field in first)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

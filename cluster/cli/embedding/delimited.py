"""Records of CSV and TSV files. A record may span lines, and one that is damaged does not end the reading."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from cluster.cli.embedding.lines import LONGEST_LINE_BYTES, Line, not_utf8, read_lines
from cluster.cli.embedding.records import Record, check_columns, choose_column, fault_of_text
from cluster.errors import InvalidRequest

# Python's surrogateescape stands for a byte that is not UTF-8 by this plus the byte.
_ESCAPED = 0xDC00


class DelimitedInput:
    """See ``cluster.cli.embedding.records.Input``.

    Args:
        column: that holds the text; None: chosen by its name. Without a header, columns are numbered from 1.
        keep: columns to keep.
        delimiter: one character. Tab-separated files have no quoting: theirs is text.
    """

    noun = "line"
    unit = "B"

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        total: int | None,
        *,
        column: str | None,
        keep: Sequence[str],
        delimiter: str,
        header: bool,
    ) -> None:
        self.name = name
        self.total = total
        self._stream = stream
        self._column = column
        self._keep = keep
        self._delimiter = delimiter
        self._header = header

    def records(self) -> Iterator[Record]:
        """Yield every record; see ``Input``."""
        csv.field_size_limit(LONGEST_LINE_BYTES)
        feed = _Feed(read_lines(self._stream, self.name))
        if self._delimiter == "\t":
            reader = csv.reader(feed, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(feed, delimiter=self._delimiter, strict=True)
        columns: Sequence[str] | None = None
        text = ""
        while True:
            begin = feed.number + 1
            feed.fault = None
            try:
                fields = next(reader)
                fault = feed.fault
            except StopIteration:
                break
            except csv.Error as error:
                fields, fault = [], f"{error}; check the quotes from this line on"
            if columns is None:
                if fault is not None or not fields:
                    yield Record(begin, feed.end, fault=fault or "the line is empty")
                    continue
                columns = fields if self._header else [str(number) for number in range(1, len(fields) + 1)]
                text = self._check(columns)
                if self._header:
                    continue
            yield self._record(begin, feed.end, fields, fault, columns, text)
        if columns is None:
            raise InvalidRequest(
                f"{self.name} has no line that names its columns; give the file a header, or --no-header"
            )

    def _check(self, columns: Sequence[str]) -> str:
        check_columns(columns, self._keep, self.name, "--keep")
        return choose_column(columns, self._column, self.name)

    def _record(
        self, line: int, end: int, fields: list[str], fault: str | None, columns: Sequence[str], column: str
    ) -> Record:
        fault = fault or _fault_of(fields, columns)
        if fault is not None:
            return Record(line, end, fault=fault)
        row: Mapping[str, str | None] = dict(zip(columns, fields, strict=False))
        broken = next(filter(None, (_broken(row, name) for name in self._keep)), None)
        kept = {} if broken else {name: row.get(name) for name in self._keep}
        fault = broken or _fault_of_field(row, column)
        return Record(line, end, "" if fault else row[column] or "", kept, fault)


class _Feed:
    """Lines for ``csv.reader``, which tells neither where a record began nor what was wrong with a line of it."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.number = 0
        self.end = 0
        self.fault: str | None = None

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number, self.end = line.number, line.end
        self.fault = self.fault or line.fault
        # With the break, which belongs to the text where a quoted field spans lines.
        return line.content.decode("utf-8", "surrogateescape") + "\n"


def _fault_of(fields: list[str], columns: Sequence[str]) -> str | None:
    if not fields:
        return "the line is empty"
    if len(fields) > len(columns):
        return (
            f"{len(fields)} fields, and there are {len(columns)} columns; put a field that has the delimiter in it into "
            "double quotes"
        )
    return None


def _fault_of_field(row: Mapping[str, str | None], column: str) -> str | None:
    if column not in row:
        return f"{column} is missing"
    return _broken(row, column) or fault_of_text(row[column], column)


def _broken(row: Mapping[str, str | None], column: str) -> str | None:
    value = row.get(column) or ""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        start = len(value[: error.start].encode("utf-8", "surrogateescape"))
        return f"{column}: {not_utf8(ord(value[error.start]) - _ESCAPED, start)}"
    return None

"""Records of text files (a line each) and JSONL files (an object or a string each)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import orjson

from cluster.cli.embedding.lines import Line, decode, read_lines
from cluster.cli.embedding.records import Record, check_columns, choose_column, fault_of_text

# A column that no early record has is taken for a mistake in the command rather than in every line.
_LOOK_AHEAD_LINES = 100


class TextInput:
    """Every line is a text; see ``cluster.cli.embedding.records.Input``."""

    noun = "line"
    unit = "B"

    def __init__(self, stream: BinaryIO, name: str, total: int | None) -> None:
        self.name = name
        self.total = total
        self._stream = stream

    def records(self) -> Iterator[Record]:
        """Yield every record; see ``Input``."""
        for line in read_lines(self._stream, self.name):
            try:
                text = decode(line.content)
            except ValueError as error:
                yield Record(line.number, line.end, fault=str(error))
                continue
            fault = line.fault or fault_of_text(text, "the line")
            yield Record(line.number, line.end, "" if fault else text, fault=fault)


class JsonLinesInput:
    """Every line is a JSON object with a text in one of its members, or a JSON string; see ``Input``.

    Args:
        column: member that holds the text; None: chosen by its name.
        keep: members to keep.
    """

    noun = "line"
    unit = "B"

    def __init__(
        self, stream: BinaryIO, name: str, total: int | None, *, column: str | None, keep: Sequence[str]
    ) -> None:
        self.name = name
        self.total = total
        self._stream = stream
        self._column = column
        self._keep = keep

    def records(self) -> Iterator[Record]:
        """Yield every record; see ``Input``."""
        parsed = map(_parse, read_lines(self._stream, self.name))
        early = list(itertools.islice(parsed, _LOOK_AHEAD_LINES))
        members = list(dict.fromkeys(name for _, value, _ in early if isinstance(value, dict) for name in value))
        column = ""
        if members:
            check_columns(members, self._keep, self.name, "--keep")
            column = choose_column(members, self._column, self.name)
        for line, value, fault in itertools.chain(early, parsed):
            yield Record(line.number, line.end, fault=fault) if fault else self._record(line, value, column)

    def _record(self, line: Line, value: object, column: str) -> Record:
        if isinstance(value, str) and not self._keep:
            fault = fault_of_text(value, "the line")
            return Record(line.number, line.end, "" if fault else value, fault=fault)
        if not isinstance(value, Mapping):
            expected = "a JSON object" if self._keep else "a JSON object or string"
            fault = f"{expected} was expected, this is of type {type(value).__name__}"
            return Record(line.number, line.end, fault=fault)
        kept = {name: value.get(name) for name in self._keep}
        fault = fault_of_text(value[column], column) if column in value else f"{column} is missing"
        return Record(line.number, line.end, "" if fault else str(value[column]), kept, fault)


def _parse(line: Line) -> tuple[Line, object, str | None]:
    if line.fault is not None:
        return line, None, line.fault
    try:
        text = decode(line.content)
        if not text.strip():
            return line, None, "the line is empty"
        return line, orjson.loads(text), None
    except orjson.JSONDecodeError as error:
        return line, None, f"not JSON ({error.msg} at column {error.colno})"
    except ValueError as error:
        return line, None, str(error)

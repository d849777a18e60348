"""What an input is made of: records, each with the line it begins on, its text, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cluster.errors import InvalidRequest, nearest

TEXT_COLUMNS = ("text", "sentence", "content", "document", "passage", "input")
"""Where no column is named, the first of these that the input has is read."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes:
        line: on which it begins, from 1; of a Parquet file the row.
        position: how far the input was read to have it, in the input's unit.
        text: what to embed; empty for a record with a fault.
        kept: values of the columns to keep, as JSON can hold them; empty where the record is damaged as a whole.
        fault: why the record cannot be embedded.
    """

    line: int
    position: int
    text: str = ""
    kept: Mapping[str, object] = field(default_factory=dict)
    fault: str | None = None


class Input(Protocol):
    """A file or a stream of records.

    Attributes:
        name: for messages.
        noun: what a record's number counts: ``line`` or ``row``.
        unit: of ``Record.position`` and ``total``: ``B`` or ``row``.
        total: the last record's position; None where it is not known beforehand.
    """

    name: str
    noun: str
    unit: str
    total: int | None

    def records(self) -> Iterator[Record]:
        """Yield every record once, in order; holds few at a time.

        Raises:
            InvalidRequest: the input is not of its format as a whole, or lacks a column.
        """
        ...


def choose_column(columns: Sequence[str], wanted: str | None, where: str) -> str:
    """Return the column that holds the text: the one named, else a usual name, else the only one.

    Raises:
        InvalidRequest: there is none.
    """
    if wanted is not None:
        check_columns(columns, [wanted], where, "--column")
        return wanted
    by_lower = {column.strip().lower(): column for column in reversed(columns)}
    for name in TEXT_COLUMNS:
        if name in by_lower:
            return by_lower[name]
    if len(columns) == 1:
        return columns[0]
    raise InvalidRequest(
        f"{where} has no column named {', '.join(TEXT_COLUMNS[:-1])} or {TEXT_COLUMNS[-1]}; say with --column which one "
        f"holds the text. It has: {', '.join(columns)}"
    )


def check_columns(columns: Sequence[str], wanted: Sequence[str], where: str, option: str) -> None:
    """Check that all columns ``wanted`` exist.

    Raises:
        InvalidRequest: one does not; names the nearest.
    """
    for name in wanted:
        if name not in columns:
            raise InvalidRequest(
                f"{where} has no column {name!r}{nearest(name, columns)}; correct {option}. It has: {', '.join(columns)}"
            )


def fault_of_text(value: object, column: str) -> str | None:
    """Return why a field's value is no text to embed, None if it is one."""
    if value is None:
        return f"{column} is null; a text was expected"
    if not isinstance(value, str):
        return f"{column} is of type {type(value).__name__}; a text was expected"
    if not value.strip():
        return f"{column} is empty"
    return None

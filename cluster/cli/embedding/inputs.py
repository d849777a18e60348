"""Finds out what an input is, and opens it."""

from __future__ import annotations

import enum
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cluster.cli.embedding.delimited import DelimitedInput
from cluster.cli.embedding.parquet import ParquetInput
from cluster.cli.embedding.plain import JsonLinesInput, TextInput
from cluster.cli.embedding.records import Input
from cluster.errors import InvalidRequest

STANDARD_INPUT = "-"


class InputFormat(enum.StrEnum):
    """What a file may be."""

    TEXT = "text"
    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    PARQUET = "parquet"


_BY_ENDING = {
    ".csv": InputFormat.CSV,
    ".tsv": InputFormat.TSV,
    ".tab": InputFormat.TSV,
    ".jsonl": InputFormat.JSONL,
    ".ndjson": InputFormat.JSONL,
    ".json": InputFormat.JSONL,
    ".parquet": InputFormat.PARQUET,
    ".pq": InputFormat.PARQUET,
}


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How an input is read.

    Attributes:
        format: None goes by the file's ending; standard input and unknown endings are text.
        column: that holds the text; None: chosen by its name.
        keep: columns to keep beside the vectors.
        delimiter: of CSV; None: a comma.
        header: whether the first line of CSV or TSV names the columns.
    """

    format: InputFormat | None = None
    column: str | None = None
    keep: tuple[str, ...] = ()
    delimiter: str | None = None
    header: bool = True


def format_of(source: str, options: InputOptions) -> InputFormat:
    """Return the format of an input."""
    return options.format or _BY_ENDING.get(Path(source).suffix.lower(), InputFormat.TEXT)


@contextmanager
def open_input(source: str, options: InputOptions) -> Iterator[Input]:
    """Open an input and close it afterwards; ``-`` is standard input.

    Raises:
        InvalidRequest: it cannot be read, or an option does not fit its format.
    """
    kind = format_of(source, options)
    _check(options, kind)
    if kind is InputFormat.PARQUET:
        if source == STANDARD_INPUT:
            raise InvalidRequest("Parquet cannot be read from standard input, since its end comes first; give a file")
        yield ParquetInput(Path(source), column=options.column, keep=options.keep)
        return
    if source == STANDARD_INPUT:
        yield _streamed(sys.stdin.buffer, "standard input", None, kind, options)
        return
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(source).open("rb"))
        except OSError as error:
            raise InvalidRequest(f"{source} cannot be read: {error.strerror}; correct the path") from error
        status = os.fstat(stream.fileno())
        total = status.st_size if stat.S_ISREG(status.st_mode) else None
        yield _streamed(stream, source, total, kind, options)


def _streamed(stream: BinaryIO, name: str, total: int | None, kind: InputFormat, options: InputOptions) -> Input:
    if kind is InputFormat.TEXT:
        return TextInput(stream, name, total)
    if kind is InputFormat.JSONL:
        return JsonLinesInput(stream, name, total, column=options.column, keep=options.keep)
    return DelimitedInput(
        stream,
        name,
        total,
        column=options.column,
        keep=options.keep,
        delimiter=options.delimiter or ("\t" if kind is InputFormat.TSV else ","),
        header=options.header,
    )


def _check(options: InputOptions, kind: InputFormat) -> None:
    if kind is InputFormat.TEXT and (options.column is not None or options.keep):
        raise InvalidRequest(
            "a text file has no columns; leave out --column and --keep, or say what the input is with --input-format"
        )
    if kind not in (InputFormat.CSV, InputFormat.TSV) and not options.header:
        raise InvalidRequest(f"--no-header is for CSV and TSV, and the input is {kind}; leave it out")
    if kind is not InputFormat.CSV and options.delimiter is not None:
        raise InvalidRequest(f"--delimiter is for CSV, and the input is {kind}; leave it out")

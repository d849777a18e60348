"""A journal's parts → the output: JSONL, NPY or Parquet. One row for each record of the input, also for a bad one."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cluster.cli.embedding.journal import Journal, writing
from cluster.cli.embedding.parts import Part, Result, join_kinds, written_whole
from cluster.errors import InvalidRequest
from cluster.types import Float32

LINE, EMBEDDING = "line", "embedding"
_ROW_GROUP_ROWS = 8192
_ROW_GROUP_VALUES = 8 * 1024 * 1024


class OutputFormat(enum.StrEnum):
    """What the output may be."""

    JSONL = "jsonl"
    NPY = "npy"
    PARQUET = "parquet"


_BY_ENDING = {
    ".jsonl": OutputFormat.JSONL,
    ".ndjson": OutputFormat.JSONL,
    ".npy": OutputFormat.NPY,
    ".parquet": OutputFormat.PARQUET,
    ".pq": OutputFormat.PARQUET,
}


def format_of(path: Path, wanted: OutputFormat | None) -> OutputFormat:
    """Return the format of an output: the one wanted, else by its ending.

    Raises:
        InvalidRequest: the ending says nothing.
    """
    kind = wanted or _BY_ENDING.get(path.suffix.lower())
    if kind is None:
        raise InvalidRequest(
            f"the ending of {path} names no format; use .jsonl, .npy or .parquet, or give --output-format"
        )
    return kind


def check_kept(keep: Iterable[str], kind: OutputFormat) -> None:
    """Check that the output can hold the columns to keep.

    Raises:
        InvalidRequest: it cannot.
    """
    names = list(keep)
    if names and kind is OutputFormat.NPY:
        raise InvalidRequest(
            "an NPY file has no room for the columns of --keep; write .parquet or .jsonl, or leave it out"
        )
    for name in names:
        if name in (LINE, EMBEDDING) or names.count(name) > 1:
            raise InvalidRequest(f"--keep {name} would be in the output twice; leave it out or rename the column")


def offsets_path(output: Path) -> Path:
    """Return where the offsets of token vectors lie beside an NPY output."""
    return output.with_name(output.stem + ".offsets.npy")


def print_result(result: Result, keep: Sequence[str]) -> bytes:
    """Return a result as one line of JSONL."""
    return _print_row(result.record.line, result.record.kept, keep, result.vector)


def write_output(journal: Journal, output: Path, kind: OutputFormat, keep: Sequence[str]) -> list[Path]:
    """Write the output from all parts, with flat memory; returns the files.

    Raises:
        InvalidRequest: it cannot be written; the parts are kept.
    """
    with writing(output):
        if kind is OutputFormat.JSONL:
            return _write_jsonl(journal, output, keep)
        if kind is OutputFormat.NPY:
            return _write_npy(journal, output)
        return _write_parquet(journal, output, keep)


def _write_jsonl(journal: Journal, output: Path, keep: Sequence[str]) -> list[Path]:
    with written_whole(output) as unfinished, unfinished.open("wb") as file:
        for part in journal.parts():
            for line, kept, vector in _rows(part):
                file.write(_print_row(line, kept, keep, vector))
    return [output]


def _print_row(line: int, kept: Mapping[str, object], keep: Sequence[str], vector: Float32 | None) -> bytes:
    row = {LINE: line, **{name: kept.get(name) for name in keep}, EMBEDDING: vector}
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _write_npy(journal: Journal, output: Path) -> list[Path]:
    facts = journal.facts
    width = max((part.dimensions for part in facts), default=0)
    matrices = any(part.matrices for part in facts)
    rows = sum(part.rows for part in facts) if matrices else sum(part.records for part in facts)
    with written_whole(output) as unfinished, unfinished.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in journal.parts():
            values = part.values if matrices else _with_nan(part, width)
            file.write(np.ascontiguousarray(values, dtype="<f4").data)
    if not matrices:
        return [output]
    with written_whole(offsets_path(output)) as unfinished, unfinished.open("wb") as file:
        np.save(file, _all_offsets(journal))
    return [output, offsets_path(output)]


def _with_nan(part: Part, width: int) -> Float32:
    table = np.full((len(part.lines), width), np.nan, dtype=np.float32)
    table[np.diff(part.offsets) > 0] = part.values
    return table


def _all_offsets(journal: Journal) -> np.ndarray[Any, np.dtype[np.int64]]:
    counts = [np.diff(part.offsets) for part in journal.parts()]
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(counts))])


def _write_parquet(journal: Journal, output: Path, keep: Sequence[str]) -> list[Path]:
    # Imported late: other formats need none of it.
    import pyarrow
    from pyarrow import parquet

    matrices = any(part.matrices for part in journal.facts)
    found = join_kinds(journal.facts)
    kinds = {name: found.get(name, set()) for name in keep}
    vector_type = pyarrow.list_(pyarrow.float32())
    facts = next((part for part in journal.facts if part.dimensions), None)
    about = {"model": facts.model, "pooling": facts.pooling, "fingerprint": facts.fingerprint} if facts else {}
    schema = pyarrow.schema(
        [
            pyarrow.field(LINE, pyarrow.int64(), nullable=False),
            *(pyarrow.field(name, _arrow_type(kinds[name])) for name in keep),
            pyarrow.field(EMBEDDING, pyarrow.list_(vector_type) if matrices else vector_type),
        ],
        metadata={f"poolhouse.{name}": value for name, value in about.items()},
    )
    with (
        written_whole(output) as unfinished,
        # Vectors never repeat, so a dictionary of them is wasted work.
        parquet.ParquetWriter(unfinished, schema, compression="zstd", use_dictionary=list(keep)) as writer,
    ):
        for group in _groups(journal.parts()):
            tables = [_arrow_table(part, schema, matrices) for part in group]
            writer.write_table(pyarrow.concat_tables(tables))
    return [output]


def _arrow_table(part: Part, schema: Any, matrices: bool) -> Any:
    import pyarrow

    bad = pyarrow.array(np.diff(part.offsets) == 0)
    width = part.values.shape[1]
    if matrices:
        vectors = _arrow_vectors(part.values, np.arange(len(part.values) + 1, dtype=np.int64) * width)
        column = pyarrow.ListArray.from_arrays(pyarrow.array(part.offsets, pyarrow.int32()), vectors, mask=bad)
    else:
        column = _arrow_vectors(part.values, part.offsets * width, bad)
    columns = [pyarrow.array(part.lines)]
    for field in list(schema)[1:-1]:
        values = [row.get(field.name) for row in part.kept]
        columns.append(pyarrow.array(_fitted(values, field.type), field.type))
    return pyarrow.Table.from_arrays([*columns, column], schema=schema)


def _arrow_vectors(values: Float32, offsets: Any, bad: Any = None) -> Any:
    import pyarrow

    flat = pyarrow.array(values.reshape(-1))
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets, pyarrow.int32()), flat, mask=bad)


def _arrow_type(kinds: set[str]) -> Any:
    import pyarrow

    by_kinds = {
        frozenset({"bool"}): pyarrow.bool_(),
        frozenset({"int"}): pyarrow.int64(),
        frozenset({"float"}): pyarrow.float64(),
        frozenset({"int", "float"}): pyarrow.float64(),
    }
    return by_kinds.get(frozenset(kinds - {"null"}), pyarrow.string())


def _fitted(values: list[object], kind: Any) -> list[object]:
    """Return the values as a column of one type can hold them: where kinds are mixed, as text or JSON."""
    import pyarrow

    if not pyarrow.types.is_string(kind):
        return values
    return [value if value is None or isinstance(value, str) else orjson.dumps(value).decode() for value in values]


def _groups(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Gather small parts, so that row groups have a useful size."""
    group: list[Part] = []
    rows = values = 0
    for part in parts:
        group.append(part)
        rows += len(part.lines)
        values += part.values.size
        if rows >= _ROW_GROUP_ROWS or values >= _ROW_GROUP_VALUES:
            yield group
            group, rows, values = [], 0, 0
    if group:
        yield group


def _rows(part: Part) -> Iterator[tuple[int, dict[str, object], Float32 | None]]:
    ranges = itertools.pairwise(part.offsets.tolist())
    for line, kept, (begin, end) in zip(part.lines.tolist(), part.kept, ranges, strict=True):
        if begin == end:
            yield line, kept, None
        else:
            yield line, kept, part.values[begin:end] if part.facts.matrices else part.values[begin]

"""Records of Parquet files, read in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from cluster.cli.embedding.records import Record, check_columns, choose_column, fault_of_text
from cluster.errors import InvalidRequest

_BATCH_ROWS = 1024


class ParquetInput:
    """Every row is a record; see ``cluster.cli.embedding.records.Input``.

    Raises:
        InvalidRequest: it is no Parquet file, or lacks a column, or the column's type is not text.
    """

    noun = "row"
    unit = "row"

    def __init__(self, path: Path, *, column: str | None, keep: Sequence[str]) -> None:
        # Imported late: other formats need none of it.
        import pyarrow
        from pyarrow import parquet

        self.name = str(path)
        self._keep = list(keep)
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise InvalidRequest(f"{path} cannot be read as Parquet: {error}") from error
        schema = self._file.schema_arrow
        check_columns(schema.names, keep, self.name, "--keep")
        self._column = choose_column(schema.names, column, self.name)
        kind = schema.field(self._column).type
        value_kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        if not (pyarrow.types.is_string(value_kind) or pyarrow.types.is_large_string(value_kind)):
            raise InvalidRequest(
                f"{path}: column {self._column!r} is of type {kind}; choose a column of texts with --column"
            )
        self.total: int | None = self._file.metadata.num_rows

    def records(self) -> Iterator[Record]:
        """Yield every record; see ``Input``."""
        row = 0
        names = list(dict.fromkeys([self._column, *self._keep]))
        for batch in self._batches(names):
            columns = {name: batch.column(name).to_pylist() for name in names}
            for position, text in enumerate(columns[self._column]):
                row += 1
                kept = {name: _plain(columns[name][position]) for name in self._keep}
                fault = fault_of_text(text, self._column)
                yield Record(row, row, "" if fault else text, kept, fault)

    def _batches(self, names: list[str]) -> Iterator[Any]:
        import pyarrow

        try:
            yield from self._file.iter_batches(batch_size=_BATCH_ROWS, columns=names)
        except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{self.name} cannot be read on: {error}; the file is damaged") from error


def _plain(value: object) -> object:
    """Return a value as JSON can hold it: dates and the like become text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return orjson.loads(orjson.dumps(value, default=str))

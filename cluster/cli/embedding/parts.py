"""A part: the results of consecutive records in one file, which appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cluster.cli.embedding.records import Record
from cluster.errors import InvalidRequest
from cluster.types import Float32, Int64, offsets_of

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a record: a vector float32 ``[dimensions]``, token vectors ``[n_tokens, dimensions]``, or a fault."""

    record: Record
    vector: Float32 | None = None
    tokens: int = 0
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What made the vectors; vectors of two fingerprints cannot be compared."""

    model: str = ""
    pooling: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What is known of a part without reading its vectors.

    Attributes:
        digest: of the records as they were read.
        rows: rows of all vectors: one for each good record, or one for each token.
        dimensions: 0 where no record was good.
        kinds: for each kept column the kinds of JSON values that it has.
    """

    records: int
    bad: int
    rows: int
    tokens: int
    cut_tokens: int
    dimensions: int
    matrices: bool
    first_line: int
    last_line: int
    digest: str
    model: str
    pooling: str
    fingerprint: str
    kinds: dict[str, list[str]] = field(default_factory=dict)
    version: int = _VERSION


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was read back.

    Attributes:
        lines: int64 ``[n]``.
        offsets: int64 ``[n + 1]`` into the rows of ``values``; a bad record has none.
        values: float32 ``[rows, dimensions]``.
        kept: values of the kept columns, for each record.
        faults: (line, fault) of each bad record.
    """

    facts: PartFacts
    lines: Int64
    offsets: Int64
    values: Float32
    kept: list[dict[str, object]]
    faults: list[tuple[int, str]]


class Digest:
    """Follows records as they are read; equal digests mean equal records."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, record: Record) -> None:
        """Take the next record."""
        text = record.text.encode("utf-8", "surrogatepass")
        head = orjson.dumps([record.line, len(text), record.fault, dict(record.kept)])
        self._hash.update(head)
        self._hash.update(text)

    def hex(self) -> str:
        """Return the digest so far."""
        return self._hash.hexdigest()


def write_part(path: Path, results: list[Result], origin: Origin, cut_tokens: int) -> PartFacts:
    """Write results to a new file at ``path``; after the return the file outlives the end of the process and of the power.

    Raises:
        OSError: it cannot be written; nothing is at ``path`` then.
    """
    digest = Digest()
    kinds: dict[str, set[str]] = {}
    for result in results:
        digest.add(result.record)
        for name, value in result.record.kept.items():
            kinds.setdefault(name, set()).add(_kind(value))
    matrices = [np.atleast_2d(result.vector) for result in results if result.vector is not None]
    values = np.concatenate(matrices) if matrices else np.zeros((0, 0), dtype=np.float32)
    faults = [(result.record.line, result.fault) for result in results if result.fault is not None]
    facts = PartFacts(
        records=len(results),
        bad=len(faults),
        rows=len(values),
        tokens=sum(result.tokens for result in results),
        cut_tokens=cut_tokens,
        dimensions=values.shape[1],
        matrices=any(result.vector is not None and result.vector.ndim == 2 for result in results),
        first_line=results[0].record.line,
        last_line=results[-1].record.line,
        digest=digest.hex(),
        model=origin.model,
        pooling=origin.pooling,
        fingerprint=origin.fingerprint,
        kinds={name: sorted(found) for name, found in kinds.items()},
    )
    rows = [0 if result.vector is None else len(np.atleast_2d(result.vector)) for result in results]
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez(
            file,
            facts=_as_bytes(asdict(facts)),
            lines=np.asarray([result.record.line for result in results], dtype=np.int64),
            offsets=offsets_of(rows),
            values=values,
            kept=_as_bytes([dict(result.record.kept) for result in results]),
            faults=_as_bytes(faults),
        )
    return facts


def read_facts(path: Path) -> PartFacts:
    """Return a part's facts.

    Raises:
        InvalidRequest: the file is damaged, or of another version.
    """
    with _opened(path) as arrays:
        members = orjson.loads(arrays["facts"].tobytes())
        if members.get("version") != _VERSION:
            raise InvalidRequest(
                f"{path} was written by another version of poolhouse; finish with that one, or give --restart"
            )
        return PartFacts(**members)


def read_part(path: Path) -> Part:
    """Return a part.

    Raises:
        InvalidRequest: the file is damaged.
    """
    with _opened(path) as arrays:
        return Part(
            facts=PartFacts(**orjson.loads(arrays["facts"].tobytes())),
            lines=arrays["lines"],
            offsets=arrays["offsets"],
            values=arrays["values"],
            kept=orjson.loads(arrays["kept"].tobytes()),
            faults=[(line, fault) for line, fault in orjson.loads(arrays["faults"].tobytes())],
        )


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to; what was written there replaces ``path`` when the block ends well, and vanishes otherwise."""
    unfinished = path.with_name(path.name + ".tmp")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_directory(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def join_kinds(parts: Iterable[PartFacts]) -> dict[str, set[str]]:
    """Return the kinds of values that each kept column has in all parts together."""
    joined: dict[str, set[str]] = {}
    for facts in parts:
        for name, kinds in facts.kinds.items():
            joined.setdefault(name, set()).update(kinds)
    return joined


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        # Opened here: np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"{path} is damaged ({error}); give --restart to begin anew") from error


def _as_bytes(value: object) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(orjson.dumps(value), dtype=np.uint8)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if type(value) is int and not -(2**63) <= value < 2**63:
        return "json"
    return type(value).__name__ if isinstance(value, (bool, int, float, str)) else "json"

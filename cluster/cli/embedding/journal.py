"""What is done of one output: a directory of parts beside it.

The records of the parts are the first records of the input, in order. A run that was ended, however that happened, left whole
parts; the next one reads the input from its beginning, holds what it reads against the parts' digests, and goes on behind them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import orjson

from cluster.cli.embedding.parts import (
    Digest,
    Origin,
    Part,
    PartFacts,
    Result,
    read_facts,
    read_part,
    write_part,
    written_whole,
)
from cluster.cli.embedding.records import Record
from cluster.errors import InvalidRequest, PoolhouseError

_SETTINGS = "settings.json"
_LOCK = "lock"
_PARTS = "part-*.npz"
_PART_BYTES = 32 * 1024 * 1024


def directory_of(output: Path) -> Path:
    """Return the directory of an output's parts."""
    return output.with_name(output.name + ".parts")


class Journal:
    """See the module's docstring. Opened with ``Journal.opened``.

    Attributes:
        facts: of the parts so far, in order.
    """

    def __init__(self, directory: Path, part_lines: int, part_s: float, clock: Callable[[], float]) -> None:
        self.directory = directory
        self.facts = [read_facts(path) for path in self._paths()]
        self._part_lines = part_lines
        self._part_s = part_s
        self._clock = clock
        self._results: list[Result] = []
        self._origin = next((_origin(facts) for facts in self.facts if facts.fingerprint), Origin())
        self._cut_tokens = 0
        self._bytes = 0
        self._begun_s = 0.0

    @classmethod
    @contextmanager
    def opened(
        cls,
        output: Path,
        settings: Mapping[str, object],
        *,
        restart: bool,
        part_lines: int,
        part_s: float,
        clock: Callable[[], float],
    ) -> Iterator[Self]:
        """Open the journal of an output, or begin one; no other process can meanwhile.

        Args:
            settings: all that the vectors depend on; a journal that was begun with others is refused.
            restart: throw away what is done.
            part_lines: records of one part at most.
            part_s: seconds after which a part is written even if it is small.

        Raises:
            InvalidRequest: another process holds it, its settings differ, or it cannot be written.
        """
        directory = directory_of(output)
        with writing(directory):
            directory.mkdir(exist_ok=True)
            lock = (directory / _LOCK).open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InvalidRequest(
                    f"another process is writing {output}; wait for it, or give another --output"
                ) from error
            with writing(directory):
                _clear(directory, everything=restart)
            _agree(directory, settings)
            yield cls(directory, part_lines, part_s, clock)

    @property
    def done(self) -> int:
        """Records in parts."""
        return sum(facts.records for facts in self.facts)

    def replay(self, records: Iterator[Record], noun: str) -> int:
        """Read past the records that are done and return the last one's position in the input.

        Raises:
            InvalidRequest: the input is not the one that the parts were made from.
        """
        position = 0
        for facts in self.facts:
            digest = Digest()
            for _ in range(facts.records):
                record = next(records, None)
                if record is None:
                    break
                digest.add(record)
                position = record.position
            if digest.hex() != facts.digest:
                raise InvalidRequest(
                    f"the input changed between {noun} {facts.first_line} and {noun} {facts.last_line} since "
                    f"{self.directory} was begun; give the input that it was begun with, or --restart to begin anew"
                )
        return position

    def follow(self, origin: Origin, first_line: int, noun: str) -> None:
        """Note what makes the vectors from here on.

        Raises:
            PoolhouseError: it is not what made the vectors before.
        """
        before = self._origin
        if before.fingerprint and origin.fingerprint and before.fingerprint != origin.fingerprint:
            raise PoolhouseError(
                f"the vectors before {noun} {first_line} are of {before.model} with fingerprint {before.fingerprint}, and now "
                f"{origin.model} with {origin.fingerprint} answers; they cannot be compared. Bring the former model back, "
                "or give --restart to begin anew"
            )
        if not before.fingerprint:
            self._origin = origin

    def add(self, result: Result) -> None:
        """Take the result of the next record."""
        if not self._results:
            self._begun_s = self._clock()
        self._results.append(result)
        self._bytes += 0 if result.vector is None else result.vector.nbytes
        full = len(self._results) >= self._part_lines or self._bytes >= _PART_BYTES
        if full or self._clock() - self._begun_s >= self._part_s:
            self.commit()

    def add_cut_tokens(self, cut_tokens: int) -> None:
        """Count what truncation removed from the records that are added next."""
        self._cut_tokens += cut_tokens

    def commit(self) -> None:
        """Write what was added since the last part.

        Raises:
            InvalidRequest: it cannot be written.
        """
        if not self._results:
            return
        path = self.directory / f"part-{len(self.facts):06d}.npz"
        # Given up before the writing: what could not be written once is made again by the next run.
        results, cut_tokens = self._results, self._cut_tokens
        self._results, self._bytes, self._cut_tokens = [], 0, 0
        with writing(path):
            facts = write_part(path, results, self._origin, cut_tokens)
        self.facts.append(facts)

    def parts(self) -> Iterator[Part]:
        """Yield the parts, one in memory at a time."""
        for path in self._paths():
            yield read_part(path)

    def remove(self) -> None:
        """Remove the directory, when the output is complete."""
        with writing(self.directory):
            _clear(self.directory, everything=True)
            (self.directory / _LOCK).unlink()
            self.directory.rmdir()

    def _paths(self) -> list[Path]:
        paths = sorted(self.directory.glob(_PARTS))
        for number, path in enumerate(paths):
            if path.name != f"part-{number:06d}.npz":
                raise InvalidRequest(f"part {number} is missing from {self.directory}; give --restart to begin anew")
        return paths


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the failure to write into a sentence.

    Raises:
        InvalidRequest: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or f"{error} (is the disk full?)"
        raise InvalidRequest(
            f"{path} cannot be written: {reason}; free space or correct the path or its permissions"
        ) from error


def _clear(directory: Path, *, everything: bool) -> None:
    """Remove what an ended process left unfinished, or all that a journal has but its lock; nothing that is not a journal's."""
    for pattern in ("*.tmp", *([_PARTS, _SETTINGS] if everything else [])):
        for path in directory.glob(pattern):
            path.unlink()


def _agree(directory: Path, settings: Mapping[str, object]) -> None:
    path = directory / _SETTINGS
    wanted = orjson.loads(orjson.dumps(settings))
    if not path.exists() and not any(directory.glob(_PARTS)):
        with writing(path), written_whole(path) as unfinished:
            unfinished.write_bytes(orjson.dumps(wanted))
        return
    try:
        begun = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InvalidRequest(f"{path} is damaged ({error}); give --restart to begin anew") from error
    for name in wanted:
        if begun.get(name) != wanted[name]:
            raise InvalidRequest(
                f"{directory} was begun with {name} {_shown(begun.get(name))} and this command has "
                f"{_shown(wanted[name])}; give the same, another --output, or --restart to begin anew"
            )


def _shown(value: object) -> str:
    return "left out" if value is None else os.fsdecode(orjson.dumps(value))


def _origin(facts: PartFacts) -> Origin:
    return Origin(facts.model, facts.pooling, facts.fingerprint)

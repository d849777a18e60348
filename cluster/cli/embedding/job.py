"""One run of ``poolhouse embed``: to a file by way of a journal, or straight to standard output."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from cluster.cli.embedding.embedders import Embedder
from cluster.cli.embedding.journal import Journal, directory_of, writing
from cluster.cli.embedding.outputs import OutputFormat, print_result, write_output
from cluster.cli.embedding.pairing import embed_records
from cluster.cli.embedding.parts import written_whole
from cluster.cli.embedding.records import Input, Record
from cluster.cli.embedding.reporting import Reporter, summarize
from cluster.errors import InvalidRequest, PoolhouseError


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a run works; none of it changes a vector but ``prompt``.

    Attributes:
        prompt: set before every text.
        keep: columns to keep.
        errors: file for the bad records; None: beside the output, and nowhere for standard output.
        overwrite: replace an output that exists.
        restart: throw away what an earlier run left.
        quiet: no bar and no summary.
        part_lines, part_s: how much is saved at a time; whichever is reached first.
    """

    prompt: str = ""
    keep: tuple[str, ...] = ()
    errors: Path | None = None
    overwrite: bool = False
    restart: bool = False
    quiet: bool = False
    part_lines: int = 4096
    part_s: float = 10.0
    clock: Callable[[], float] = time.monotonic


def check_output(output: Path, options: JobOptions) -> None:
    """Check that the output may be written.

    Raises:
        InvalidRequest: it exists and is not to be overwritten, or is no file.
    """
    if output.is_dir() or (output.exists() and not output.is_file()):
        raise InvalidRequest(f"{output} is not a file; give another --output")
    if not output.parent.is_dir():
        raise InvalidRequest(
            f"{output} cannot be written: there is no directory {output.parent}; make it, or correct --output"
        )
    begun = directory_of(output).exists() and not options.restart
    if output.exists() and not options.overwrite and not begun:
        raise InvalidRequest(f"{output} exists; give another --output, or --overwrite to replace it")


def embed_to_file(
    source: Input,
    open_embedder: Callable[[], Embedder],
    output: Path,
    kind: OutputFormat,
    settings: Mapping[str, object],
    options: JobOptions,
) -> int:
    """Embed an input into a file and return the number of bad records. A run that was ended is continued.

    Args:
        open_embedder: called when there is something to do for it.
        settings: all that the vectors depend on beside the input.

    Raises:
        InvalidRequest: input or output is not usable; the input or the settings changed since the run was begun.
        PoolhouseError: embedding failed half-way; what was done is kept.
    """
    errors = options.errors or output.with_name(output.name + ".errors.jsonl")
    with Journal.opened(
        output,
        settings,
        restart=options.restart,
        part_lines=options.part_lines,
        part_s=options.part_s,
        clock=options.clock,
    ) as journal:
        records = source.records()
        position = journal.replay(records, source.noun)
        with _stopping(journal, source.noun):
            _embed(source, records, position, open_embedder, journal, str(errors), options)
        with _finishing(journal):
            files = write_output(journal, output, kind, options.keep)
            bad = _write_errors(journal, errors, always=options.errors is not None)
        journal.remove()
        if not options.quiet:
            print(summarize(journal.facts, source.noun), file=sys.stderr)
            for file in [*files, *([errors] if bad else [])]:
                print(f"written: {file}", file=sys.stderr)
        return bad


def embed_to_stream(source: Input, embedder: Embedder, stream: BinaryIO, options: JobOptions) -> int:
    """Embed an input as JSONL into a stream and return the number of bad records.

    Raises:
        PoolhouseError: embedding failed half-way; what was done was written.
    """
    bad = last_line = 0
    with ExitStack() as stack:
        stack.callback(embedder.close)
        log = None
        if options.errors is not None:
            with writing(options.errors):
                log = stack.enter_context(options.errors.open("wb"))
        reporter = stack.enter_context(Reporter(source, str(options.errors) if log else None, options.quiet))
        embedding = stack.enter_context(closing(embed_records(source.records(), embedder, options.prompt)))
        try:
            for embedded in embedding:
                faulty = [result for result in embedded.results if result.fault is not None]
                with _streaming("standard output"):
                    stream.writelines(print_result(result, options.keep) for result in embedded.results)
                    stream.flush()
                if log is not None:
                    with writing(Path(log.name)):
                        log.writelines(_print_error(result.record.line, str(result.fault)) for result in faulty)
                        log.flush()
                bad += len(faulty)
                last_line = embedded.results[-1].record.line if embedded.results else last_line
                reporter.count(embedded.results)
        except PoolhouseError as error:
            if not last_line:
                raise
            raise _located(
                error,
                f"stopped after {source.noun} {last_line}: {error.message}. All before was written; give --output FILE "
                "to have a run that can be continued",
            ) from error
    return bad


@contextmanager
def _streaming(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # The reader has had enough, which is no error.
        raise
    except OSError as error:
        raise InvalidRequest(f"{name} cannot be written: {error.strerror}") from error


def _embed(
    source: Input,
    records: Iterator[Record],
    position: int,
    open_embedder: Callable[[], Embedder],
    journal: Journal,
    errors: str,
    options: JobOptions,
) -> None:
    first = next(records, None)
    if first is None:
        return
    with ExitStack() as stack:
        embedder = open_embedder()
        stack.callback(embedder.close)
        reporter = stack.enter_context(Reporter(source, errors, options.quiet, journal.done, position))
        rest = itertools.chain([first], records)
        for embedded in stack.enter_context(closing(embed_records(rest, embedder, options.prompt))):
            if embedded.results:
                journal.follow(embedded.origin, embedded.results[0].record.line, source.noun)
            journal.add_cut_tokens(embedded.cut_tokens)
            for result in embedded.results:
                journal.add(result)
            reporter.count(embedded.results)
        journal.commit()


@contextmanager
def _stopping(journal: Journal, noun: str) -> Iterator[None]:
    """Save what is done when the block ends early, and say so; leave nothing behind where nothing is done."""
    try:
        yield
    except PoolhouseError as error:
        journal.commit()
        if not journal.done:
            journal.remove()
            raise
        raise _located(
            error,
            f"stopped after {noun} {journal.facts[-1].last_line}: {error.message}. {journal.done} {noun}s are kept in "
            f"{journal.directory}; run the same command again to go on behind them",
        ) from error
    except KeyboardInterrupt:
        journal.commit()
        if journal.done:
            print(
                f"\n{journal.done} {noun}s are kept in {journal.directory}; run the same command again to go on",
                file=sys.stderr,
            )
        else:
            journal.remove()
        raise


@contextmanager
def _finishing(journal: Journal) -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        raise _located(
            error,
            f"{error.message}. Everything is embedded and kept in {journal.directory}; run the same command again then",
        ) from error


def _write_errors(journal: Journal, path: Path, *, always: bool) -> int:
    """Write the bad records of all parts; where there are none, remove what an earlier run wrote beside the output."""
    bad = sum(facts.bad for facts in journal.facts)
    with writing(path):
        if not bad and not always:
            path.unlink(missing_ok=True)
            return 0
        with written_whole(path) as unfinished, unfinished.open("wb") as file:
            for part in journal.parts():
                for line, fault in part.faults:
                    file.write(_print_error(line, fault))
    return bad


def _print_error(line: int, fault: str) -> bytes:
    return orjson.dumps({"line": line, "error": fault}, option=orjson.OPT_APPEND_NEWLINE)


def _located(error: PoolhouseError, message: str) -> PoolhouseError:
    located = type(error)(message, error.param)
    located.extra = dict(error.extra)
    return located

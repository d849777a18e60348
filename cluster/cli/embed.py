"""``poolhouse embed``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.cli.arguments import (
    Subparsers,
    add_command,
    add_model_arguments,
    api_key_of,
    check_place,
    local_config,
    names,
    positive,
)
from cluster.errors import InvalidRequest
from cluster.types import PoolingType

if TYPE_CHECKING:
    from cluster.cli.embedding.embedders import Embedder, EmbedSettings

_POOLING_TYPES = tuple(pooling for pooling in PoolingType if pooling is not PoolingType.RANK)
_INPUT_FORMATS = ("text", "csv", "tsv", "jsonl", "parquet")
_OUTPUT_FORMATS = ("jsonl", "npy", "parquet")
_FAULT = 1

_DESCRIPTION = """Embed the texts of a file or of standard input, one vector for each line (row of Parquet).

With --output, what is done is saved as it goes in OUTPUT.parts. After an interruption, run the same command again: it goes on
where it stopped. A line that cannot be embedded (empty, not UTF-8, too long, without the column) is reported with its number,
written to OUTPUT.errors.jsonl, and has no vector in the output: null, or a row of NaN in NPY."""

_EXAMPLES = """examples:
  echo "The capital of China is Beijing." | poolhouse embed
  poolhouse embed texts.txt --output vectors.npy
  poolhouse embed articles.csv --column body --keep id,title --output vectors.parquet
  poolhouse embed articles.jsonl --url http://127.0.0.1:8000 --pooling mean --output vectors.parquet
  poolhouse embed passages.parquet --prompt "passage: " --truncate end --dimensions 256 --output vectors.parquet

formats, by the file's ending or by --input-format and --output-format:
  in   text (a line each), csv, tsv, jsonl (an object or a string a line), parquet
  out  jsonl  {"line": 1, kept columns, "embedding": [...]} a line; the only one for standard output
       npy    float32 [lines, dimensions]; for pooling none [tokens, dimensions], with OUTPUT.offsets.npy [lines + 1]
       parquet  line, kept columns, embedding

exit codes: 0 all lines embedded, 1 some lines were bad, 2 an error, 130 interrupted
"""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser], help_text: str) -> None:
    """Register the command."""
    parser = add_command(subparsers, "embed", help_text, _EXAMPLES, _DESCRIPTION)
    parser.add_argument("input", nargs="?", default="-", help="file; - reads standard input (the default)")
    reading = parser.add_argument_group("input")
    reading.add_argument("--input-format", choices=_INPUT_FORMATS, help="default: by the ending, else text")
    reading.add_argument("--column", help="that holds the text (default: text, sentence, content, …, or the only one)")
    reading.add_argument("--keep", type=names, default=(), metavar="COLUMNS", help="carry over, as in id,title")
    reading.add_argument("--delimiter", metavar="CHARACTER", help="of CSV (default: ,)")
    reading.add_argument("--no-header", action="store_true", help="of CSV and TSV; columns are then named 1, 2, …")
    writing = parser.add_argument_group("output")
    writing.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: JSONL on standard output")
    writing.add_argument("--output-format", choices=_OUTPUT_FORMATS, help="default: by the ending")
    writing.add_argument(
        "--errors", type=Path, metavar="FILE", help="bad lines as JSONL (default: OUTPUT.errors.jsonl)"
    )
    writing.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    writing.add_argument("--restart", action="store_true", help="throw away what an interrupted run left")
    writing.add_argument(
        "--part-lines", type=positive, default=4096, help="saved at a time, at least every 10 s (default: %(default)s)"
    )
    writing.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
    vectors = parser.add_argument_group("vectors")
    vectors.add_argument("--pooling", choices=[str(p) for p in _POOLING_TYPES], help="default: the model's")
    vectors.add_argument("--dimensions", type=positive, help="the first so many, normalised again (default: all)")
    vectors.add_argument("--no-normalize", action="store_true", help="leave the vectors' lengths as they are")
    vectors.add_argument("--truncate", choices=("none", "end", "start"), help="what is cut off a text that is too long")
    vectors.add_argument("--prompt", default="", help="set before every text")
    vectors.add_argument("--input-type", metavar="NAME", help="a prompt that the server has for the model (with --url)")
    add_model_arguments(parser)
    server = parser.add_argument_group("requests (with --url)")
    server.add_argument("--in-flight", type=positive, help="requests at the same time (default: 4)")
    server.add_argument("--request-items", type=positive, help="texts in one request at most (default: 512)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Imported late: --help needs none of it.
    from cluster.cli.embedding import outputs
    from cluster.cli.embedding.inputs import InputFormat, InputOptions, open_input
    from cluster.cli.embedding.job import JobOptions, check_output, embed_to_file, embed_to_stream

    _check(options)
    settings = _settings(options)
    reading = InputOptions(
        format=InputFormat(options.input_format) if options.input_format else None,
        column=options.column,
        keep=options.keep,
        delimiter=options.delimiter,
        header=not options.no_header,
    )
    job = JobOptions(
        prompt=options.prompt,
        keep=options.keep,
        errors=options.errors,
        overwrite=options.overwrite,
        restart=options.restart,
        quiet=options.quiet,
        part_lines=options.part_lines,
    )
    wanted = outputs.OutputFormat(options.output_format) if options.output_format else None
    kind = wanted or outputs.OutputFormat.JSONL
    if options.output is not None:
        check_output(options.output, job)
        kind = outputs.format_of(options.output, wanted)
    outputs.check_kept(options.keep, kind)
    with open_input(options.input, reading) as source:
        if options.output is None:
            bad = embed_to_stream(source, open_embedder(options, settings), sys.stdout.buffer, job)
        else:
            bad = embed_to_file(
                source, lambda: open_embedder(options, settings), options.output, kind, _identity(options), job
            )
    return _FAULT if bad else 0


def _check(options: argparse.Namespace) -> None:
    check_place(options)
    if options.url is None:
        for name in ("input_type", "in_flight", "request_items"):
            if getattr(options, name) is not None:
                raise InvalidRequest(f"--{name.replace('_', '-')} is for a server; give its --url, or leave it out")
    if options.delimiter is not None and len(options.delimiter) != 1:
        raise InvalidRequest(f"--delimiter is {options.delimiter!r}; give one character")
    if options.output is None:
        if options.output_format not in (None, "jsonl"):
            raise InvalidRequest(f"{options.output_format} cannot go to standard output; give --output FILE")
        if options.overwrite or options.restart:
            raise InvalidRequest("--overwrite and --restart are for a file; give --output, or leave them out")


def _settings(options: argparse.Namespace) -> EmbedSettings:
    from cluster.cli.embedding.embedders import EmbedSettings
    from cluster.config import Truncate

    return EmbedSettings(
        pooling=PoolingType(options.pooling) if options.pooling else None,
        dimensions=options.dimensions,
        normalize=False if options.no_normalize else None,
        input_type=options.input_type,
        truncate=Truncate(options.truncate) if options.truncate else None,
    )


def _identity(options: argparse.Namespace) -> dict[str, object]:
    """Return all that a continued run must have in common with the one that began, under the names of the arguments."""
    common = (
        *("input_format", "column", "keep", "delimiter", "no_header", "model", "quantisation", "append_eos"),
        *("pooling", "dimensions", "no_normalize", "truncate", "prompt", "input_type"),
    )
    return {f"--{name.replace('_', '-')}": getattr(options, name) for name in common}


def open_embedder(options: argparse.Namespace, settings: EmbedSettings) -> Embedder:
    """Open what embeds: a client of the server, or the model in this process."""
    from cluster.cli.embedding.embedders import LocalEmbedder, ServerEmbedder

    if options.url is None:
        return LocalEmbedder.load(local_config(options, settings.pooling), settings)
    from cluster.client import Client

    sizes = {
        name: getattr(options, name) for name in ("in_flight", "request_items") if getattr(options, name) is not None
    }
    return ServerEmbedder(Client(options.url, api_key=api_key_of(options), **sizes), options.model, settings)

"""``poolhouse rerank QUERY``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from cluster.cli.arguments import (
    Subparsers,
    add_command,
    add_model_arguments,
    check_place,
    local_config,
    open_client,
    positive,
)
from cluster.errors import InvalidRequest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cluster.cli.embedding.records import Record
    from cluster.client import Client

_FAULT = 1
_EXAMPLES = """examples:
  poolhouse rerank "What is gravity?" documents.txt --model reranker.gguf
  poolhouse rerank "What is gravity?" documents.txt --url http://127.0.0.1:8000 --top-n 5
  poolhouse rerank "What is gravity?" articles.csv --column body --json --url http://127.0.0.1:8000
  grep -i force notes.txt | poolhouse rerank "What is gravity?" --url http://127.0.0.1:8000 --model reranker

exit codes: 0 all documents ranked, 1 some were bad, 2 an error
"""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser], help_text: str) -> None:
    """Register the command."""
    parser = add_command(subparsers, "rerank", help_text, _EXAMPLES)
    parser.add_argument("query", help="the question that the documents answer")
    parser.add_argument(
        "input", nargs="?", default="-", help="documents, one a line; - reads standard input (the default)"
    )
    parser.add_argument(
        "--input-format", choices=("text", "csv", "tsv", "jsonl", "parquet"), help="default: by the ending"
    )
    parser.add_argument("--column", help="that holds the text (default: text, sentence, content, …, or the only one)")
    parser.add_argument("--top-n", type=positive, help="print so many of the best (default: all)")
    parser.add_argument("--strategy", choices=("cross_encoder", "late_interaction", "similarity"), help="how to score")
    parser.add_argument("--instruction", help="for models whose template takes one")
    parser.add_argument("--raw-scores", action="store_true", help="leave out the activation")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    check_place(options)
    good, bad = _read(options)
    if not good:
        raise InvalidRequest("there is no document to rank; give at least one line that is not empty")
    with _client(options) as client:
        ranking = client.rerank(
            options.query,
            [record.text for record in good],
            top_n=options.top_n,
            model=options.model if options.url is not None else None,
            instruction=options.instruction,
            strategy=options.strategy,
            raw_scores=True if options.raw_scores else None,
            on_error="skip",
        )
    for index, error in ranking.errors.items():
        print(f"line {good[index].line}: {error.message}", file=sys.stderr)
    rows = [(good[index].line, score, good[index].text) for index, score in ranking]
    if options.json:
        results = [{"line": line, "score": score, "text": text} for line, score, text in rows]
        answer = {"query": options.query, "model": ranking.model, "score_type": ranking.score_type, "results": results}
        print(json.dumps(answer, ensure_ascii=False))
    else:
        for line, score, text in rows:
            print(f"{score:10.4f}  {line:>6}  {' '.join(text.split())}")
    return _FAULT if bad or ranking.errors else 0


def _client(options: argparse.Namespace) -> AbstractContextManager[Client]:
    if options.url is not None:
        return open_client(options)
    # Imported late: a server needs none of it here.
    from cluster.cli.in_process import in_process_client

    return in_process_client(local_config(options))


def _read(options: argparse.Namespace) -> tuple[list[Record], int]:
    # Imported late: --help needs none of it.
    from cluster.cli.embedding.inputs import InputFormat, InputOptions, open_input

    form = InputFormat(options.input_format) if options.input_format else None
    good: list[Record] = []
    bad = 0
    with open_input(options.input, InputOptions(format=form, column=options.column)) as source:
        for record in source.records():
            if record.fault is None:
                good.append(record)
            else:
                bad += 1
                print(f"{source.name}, {source.noun} {record.line}: {record.fault}", file=sys.stderr)
    return good, bad

"""``poolhouse compare``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.cli.arguments import Subparsers, add_command, add_model_arguments, open_source, positive
from cluster.errors import InvalidRequest
from cluster.types import PoolingType

if TYPE_CHECKING:
    from cluster.evaluation.comparison import ValidationSet

_EXAMPLES = """examples:
  poolhouse compare --data pairs.csv
  poolhouse compare --data pairs.csv --labels labels.csv --report report/
  poolhouse compare --data pairs.csv --model hf://Qwen/Qwen3-Embedding-0.6B-GGUF/Qwen3-Embedding-0.6B-Q8_0.gguf@main
  poolhouse compare --retrieval corpus.jsonl queries.jsonl qrels.tsv --query-prompt "query: "
  poolhouse compare --url http://127.0.0.1:8000 --data pairs.csv --json

data:
  pairs      columns score, sentence1, sentence2; or three columns without a header
  labels     columns text, label
  retrieval  corpus and queries with columns _id, text; qrels with query-id, corpus-id, score
  Files are CSV, TSV or JSONL (by their ending), in UTF-8.
"""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser], help_text: str) -> None:
    """Register the command."""
    parser = add_command(subparsers, "compare", help_text, _EXAMPLES)
    data = parser.add_argument_group("validation set (at least one)")
    data.add_argument("--data", type=Path, metavar="PAIRS", help="pairs of texts with a score")
    data.add_argument("--labels", type=Path, metavar="LABELS", help="texts with a label")
    data.add_argument("--retrieval", type=Path, nargs=3, metavar=("CORPUS", "QUERIES", "QRELS"), help="a search task")
    data.add_argument("--skip-bad-rows", action="store_true", help="leave out rows that cannot be used, and say which")
    add_model_arguments(parser)
    method = parser.add_argument_group("method")
    method.add_argument(
        "--pooling", type=_pooling_types, default=(), metavar="LIST", help="compare only these, as in mean,last"
    )
    method.add_argument("--prompt", default="", help="set before every text of pairs and labels")
    method.add_argument("--query-prompt", default="", help="set before every query")
    method.add_argument("--document-prompt", default="", help="set before every document")
    method.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (default: %(default)s)")
    method.add_argument("--seed", type=int, default=0, help="of all chance (default: %(default)s)")
    method.add_argument("--neighbours", type=positive, default=5, help="that vote on a label (default: %(default)s)")
    method.add_argument(
        "--recall-depth", type=positive, default=10, metavar="K", help="recall@K (default: %(default)s)"
    )
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write report.html and pictures there")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Imported late: --help needs none of it.
    from cluster.evaluation.comparison import compare, to_json
    from cluster.evaluation.report import prepare_folder, write_report
    from cluster.evaluation.tasks import Settings
    from cluster.evaluation.wording import print_comparison

    data = _read(options)
    settings = Settings(
        resamples=options.resamples,
        seed=options.seed,
        neighbours=options.neighbours,
        recall_depth=options.recall_depth,
        query_prompt=options.query_prompt,
        document_prompt=options.document_prompt,
        prompt=options.prompt,
    )
    for fault in data.skipped:
        print(f"left out: {fault}", file=sys.stderr)
    if options.report is not None:
        prepare_folder(options.report)
    source = open_source(options)
    try:
        comparison = compare(source, data, settings, options.pooling, _progress())
    finally:
        source.close()
    if options.json:
        print(json.dumps(to_json(comparison), indent=2, ensure_ascii=False))
    else:
        print("\n".join(print_comparison(comparison)))
    for warning in comparison.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.report is not None:
        for file in write_report(comparison, options.report):
            print(f"written: {file}", file=sys.stderr)
    return 0


def _read(options: argparse.Namespace) -> ValidationSet:
    from cluster.evaluation.comparison import ValidationSet
    from cluster.evaluation.data import read_labels, read_pairs, read_retrieval

    if options.data is None and options.labels is None and options.retrieval is None:
        raise InvalidRequest("there is nothing to measure on; give --data, --labels or --retrieval")
    skip = options.skip_bad_rows
    retrieval = None
    if options.retrieval is not None:
        corpus, queries, qrels = options.retrieval
        retrieval = read_retrieval(corpus, queries, qrels, skip)
    return ValidationSet(
        pairs=read_pairs(options.data, skip) if options.data is not None else None,
        labels=read_labels(options.labels, skip) if options.labels is not None else None,
        retrieval=retrieval,
    )


def _progress() -> Callable[[int, int], None] | None:
    if not sys.stderr.isatty():
        return None

    def show(done: int, texts: int) -> None:
        if done == texts or done % 32 == 0:
            print(f"\rencoded {done} of {texts} texts", end="\n" if done == texts else "", file=sys.stderr, flush=True)

    return show


def _pooling_types(text: str) -> tuple[PoolingType, ...]:
    try:
        return tuple(PoolingType(name.strip()) for name in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: choose from {', '.join(PoolingType)}, joined by commas") from None

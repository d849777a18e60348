"""``poolhouse similarity TEXT TEXT …``."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

from cluster.cli.arguments import Subparsers, add_command, add_model_arguments, check_place
from cluster.cli.embed import open_embedder
from cluster.errors import InvalidRequest
from cluster.types import Float32, PoolingType

_POOLING_TYPES = (PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST, PoolingType.WEIGHTED)
_EXAMPLES = """examples:
  poolhouse similarity "A man plays a guitar." "Someone makes music."
  poolhouse similarity --pooling cls "A man plays a guitar." "Someone makes music." "A dog runs."
  poolhouse similarity --json - < texts.txt
  poolhouse similarity --url http://127.0.0.1:8000 "A man plays a guitar." "Someone makes music."

Two texts give one cosine, more give a table of all with all.
exit codes: 0 well, 2 an error
"""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser], help_text: str) -> None:
    """Register the command."""
    parser = add_command(subparsers, "similarity", help_text, _EXAMPLES)
    parser.add_argument(
        "texts", nargs="+", metavar="TEXT", help="two or more; - reads a text a line from standard input"
    )
    parser.add_argument("--pooling", choices=[str(p) for p in _POOLING_TYPES], help="default: the model's")
    parser.add_argument("--dimensions", type=int, help="compare the first so many only (default: all)")
    parser.add_argument("--prompt", default="", help="set before every text")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_arguments(parser)
    parser.set_defaults(run=_run, in_flight=None, request_items=None)


def _run(options: argparse.Namespace) -> int:
    check_place(options)
    texts = options.texts
    if "-" in texts:
        texts = [line for text in texts for line in (sys.stdin.read().splitlines() if text == "-" else [text])]
    empty = next((number for number, text in enumerate(texts, 1) if not text.strip()), None)
    if empty is not None:
        raise InvalidRequest(f"text {empty} is empty; leave it out")
    if len(texts) < 2:
        raise InvalidRequest("one text is similar to nothing; give two or more")
    vectors = _embed(options, texts)
    cosines = np.clip(vectors @ vectors.T, -1.0, 1.0)
    if options.json:
        print(json.dumps({"texts": texts, "cosine": cosines.tolist()}, ensure_ascii=False))
    elif len(texts) == 2:
        print(f"{float(cosines[0, 1]):.4f}")
    else:
        print("\n".join(_table(texts, cosines)))
    return 0


def _embed(options: argparse.Namespace, texts: list[str]) -> Float32:
    # Imported late: --help needs none of it.
    from cluster.cli.embedding.embedders import EmbedSettings

    settings = EmbedSettings(
        pooling=PoolingType(options.pooling) if options.pooling else None, dimensions=options.dimensions
    )
    embedder = open_embedder(options, settings)
    try:
        batches = list(embedder.batches(options.prompt + text for text in texts))
    finally:
        embedder.close()
    for batch in batches:
        for index, error in batch.errors.items():
            raise InvalidRequest(f"text {index + 1}: {error.message}")
    return np.stack([row for batch in batches for row in batch.rows if row is not None])


def _table(texts: list[str], cosines: Float32) -> list[str]:
    width = max(6, len(str(len(texts))))
    head = " ".join(f"{number:>{width}}" for number in range(1, len(texts) + 1))
    digits = len(str(len(texts)))
    lines = [f"{'':{digits}}  {head}"]
    for number, (text, row) in enumerate(zip(texts, cosines.tolist(), strict=True), 1):
        lines.append(f"{number:>{digits}}  " + " ".join(f"{value:{width}.3f}" for value in row) + f"  {text}")
    return lines

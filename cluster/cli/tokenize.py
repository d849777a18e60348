"""``poolhouse tokenize TEXT``."""

from __future__ import annotations

import argparse
import json
import sys

from cluster.cli.arguments import (
    Subparsers,
    add_command,
    add_model_arguments,
    check_place,
    local_config,
    open_client,
)

_EXAMPLES = """examples:
  poolhouse tokenize "The capital of China is Beijing."
  poolhouse tokenize --ids --no-special "The capital of China is Beijing."
  echo "The capital of China is Beijing." | poolhouse tokenize --json -
  poolhouse tokenize --url http://127.0.0.1:8000 "The capital of China is Beijing."

poolhouse tokens shows the tokens' vectors as well.
exit codes: 0 well, 2 an error
"""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser], help_text: str) -> None:
    """Register the command."""
    parser = add_command(subparsers, "tokenize", help_text, _EXAMPLES)
    parser.add_argument("text", help="the text; - reads it from standard input")
    parser.add_argument("--no-special", action="store_true", help="leave out the tokens that are put around a text")
    parser.add_argument("--ids", action="store_true", help="print the ids alone, on one line")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    text = sys.stdin.read().rstrip("\n") if options.text == "-" else options.text
    check_place(options)
    tokens = _tokens(options, text)
    shown = [(token_id, piece.decode("utf-8", "replace")) for token_id, piece in tokens]
    if options.json:
        print(json.dumps([{"id": token_id, "piece": piece} for token_id, piece in shown], ensure_ascii=False))
    elif options.ids:
        print(*(token_id for token_id, _ in shown))
    else:
        from cluster.evaluation.token_view import visible

        for token_id, piece in shown:
            print(f"{token_id:>7}  {visible(piece)}")
    return 0


def _tokens(options: argparse.Namespace, text: str) -> list[tuple[int, bytes]]:
    add_special = not options.no_special
    if options.url is not None:
        with open_client(options) as client:
            found = client.tokens(text, model=options.model, add_special=add_special, parse_special=False)
        return [(token.id, token.piece) for token in found]
    # Imported late: --help and servers need none of it.
    from cluster.assembly import load_tokenizer

    config = local_config(options)
    tokenizer = load_tokenizer(config)
    name = config.default_model_name
    try:
        return tokenizer.tokens(name, text, add_special, False)
    finally:
        tokenizer.models[name].vocabulary.close()

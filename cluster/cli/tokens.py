"""``poolhouse tokens TEXT``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cluster.cli.arguments import Subparsers, add_command, add_model_arguments, open_source
from cluster.errors import InvalidRequest

_EXAMPLES = """examples:
  poolhouse tokens "The capital of China is Beijing."
  poolhouse tokens --png tokens.png "The capital of China is Beijing."
  poolhouse tokens --url http://127.0.0.1:8000 --json "The capital of China is Beijing."
  echo "The capital of China is Beijing." | poolhouse tokens -
"""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser], help_text: str) -> None:
    """Register the command."""
    parser = add_command(subparsers, "tokens", help_text, _EXAMPLES)
    parser.add_argument("text", help="the text; - reads it from standard input")
    add_model_arguments(parser)
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the table as a picture, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Imported late: --help needs none of it.
    from cluster.evaluation.token_view import draw_tokens, print_table, to_json, view_tokens

    text = sys.stdin.read().rstrip("\n") if options.text == "-" else options.text
    source = open_source(options)
    try:
        view = view_tokens(source, text)
    finally:
        source.close()
    if options.json:
        print(json.dumps(to_json(view), indent=2, ensure_ascii=False))
    else:
        print("\n".join(print_table(view)))
    if options.png is not None:
        try:
            options.png.write_bytes(draw_tokens(view))
        except OSError as error:
            raise InvalidRequest(
                f"{options.png} cannot be written: {error.strerror}; give another file with --png"
            ) from error
        print(f"drawn: {options.png}", file=sys.stderr)
    return 0

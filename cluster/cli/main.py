"""``poolhouse``: finds the sub-command, prints errors readably, returns the exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cluster.errors import PoolhouseError

# Name, module, help. Modules are imported only when their command is asked for, so that --help is quick.
COMMANDS = (
    ("bench", "cluster.cli.bench", "measure servers: throughput, latency, CPU time"),
    ("check", "cluster.cli.check", "check a configuration file and print the plan"),
    ("compare", "cluster.cli.compare", "compare pooling types on your own data"),
    ("models", "cluster.cli.models", "list, pull or inspect models"),
    ("tokens", "cluster.cli.tokens", "show a text's tokens and their vectors"),
)

EXIT_FAULT = 1
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """Build the parser; only the sub-command that is asked for gets its arguments."""
    parser = argparse.ArgumentParser(
        prog="poolhouse", description="Embeddings and reranking from GGUF models, routed by pooling type."
    )
    parser.add_argument("--version", action="version", version=f"poolhouse {version('poolhouse')}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module, help_text in COMMANDS:
        if name == command:
            importlib.import_module(module).add_parser(subparsers, help_text)
        else:
            subparsers.add_parser(name, help=help_text)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 well, 1 faults found, 2 an error, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = next((argument for argument in given if not argument.startswith("-")), None)
    options = build_parser(command).parse_args(given)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except PoolhouseError as error:
        print(f"poolhouse: {error.message}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("poolhouse: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (a pager was closed). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    return code


if __name__ == "__main__":
    sys.exit(main())

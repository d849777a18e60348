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
    ("completion", "cluster.cli.completion", "print a script that completes the command in a shell"),
    ("embed", "cluster.cli.embed", "embed the texts of a file or of standard input"),
    ("models", "cluster.cli.models", "list, pull or inspect models"),
    ("rerank", "cluster.cli.rerank", "rank documents for a query"),
    ("similarity", "cluster.cli.similarity", "print the cosines of texts"),
    ("tokenize", "cluster.cli.tokenize", "show a text's tokens and their ids"),
    ("tokens", "cluster.cli.tokens", "show a text's tokens and their vectors"),
)

EXIT_FAULT = 1
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


_EPILOG = """exit codes:
  0    well
  1    done, but faults were found: bad lines, a configuration that cannot be served
  2    an error; a sentence on standard error says what to do
  130  interrupted

poolhouse COMMAND --help shows arguments and examples. poolhouse completion --help sets up a shell's completion.
"""


def build_parser(command: str | None, *, everything: bool = False) -> argparse.ArgumentParser:
    """Build the parser; only the sub-command that is asked for gets its arguments, unless ``everything`` is wanted."""
    parser = argparse.ArgumentParser(
        prog="poolhouse",
        description="Embeddings and reranking from GGUF models, routed by pooling type.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"poolhouse {version('poolhouse')}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module, help_text in COMMANDS:
        if everything or name == command:
            importlib.import_module(module).add_parser(subparsers, help_text)
        else:
            subparsers.add_parser(name, help=help_text)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 well, 1 faults found, 2 an error, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = next((argument for argument in given if not argument.startswith("-")), None)
    options = build_parser(command).parse_args(given)
    code = _run(options)
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would flush once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code == 0:
            print(f"poolhouse: standard output cannot be written: {error.strerror}", file=sys.stderr)
        return code or EXIT_ERROR
    return code


def _run(options: argparse.Namespace) -> int:
    try:
        code: int = options.run(options)
    except PoolhouseError as error:
        print(f"poolhouse: {error.message}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("poolhouse: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (a pager was closed).
        return EXIT_ERROR
    except OSError as error:
        print(f"poolhouse: {error}; free space, or correct the path or its permissions", file=sys.stderr)
        return EXIT_ERROR
    return code


if __name__ == "__main__":
    sys.exit(main())

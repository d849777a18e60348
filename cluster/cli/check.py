"""``poolhouse check FILE``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

_EXAMPLES = """examples:
  poolhouse check configs/local.yaml
  poolhouse check --pull configs/prod.yaml
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], help_text: str) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "check", help=help_text, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a Serve configuration file")
    parser.add_argument("--pull", action="store_true", help="fetch models that are not on this machine yet")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Found by name: only deployments/ may import Ray, whose schema the check needs.
    checking = importlib.import_module("deployments.check")
    report = checking.check_file(options.file, pull=options.pull)
    for line in report.plan:
        print(line)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    for fault in report.faults:
        print(f"fault: {fault}", file=sys.stderr)
    if report.faults:
        print(f"{options.file}: {len(report.faults)} fault(s)", file=sys.stderr)
        return 1
    print(f"{options.file}: good")
    return 0

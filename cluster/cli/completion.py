"""``poolhouse completion SHELL``."""

from __future__ import annotations

import argparse
import importlib

from cluster.cli.arguments import Subparsers, add_command

_SHELLS = ("bash", "zsh", "tcsh")
_EXAMPLES = """examples:
  eval "$(poolhouse completion bash)"                                 # bash, this session
  poolhouse completion bash > ~/.local/share/bash-completion/completions/poolhouse
  poolhouse completion zsh > ~/.zfunc/_poolhouse                      # zsh, with fpath+=(~/.zfunc) before compinit
"""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser], help_text: str) -> None:
    """Register the command."""
    parser = add_command(subparsers, "completion", help_text, _EXAMPLES)
    parser.add_argument("shell", choices=_SHELLS)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Imported late: other commands need none of it.
    import shtab

    # Found by name: main imports this module.
    parser = importlib.import_module("cluster.cli.main").build_parser(None, everything=True)
    for action in _actions(parser):
        if action.metavar in ("FILE", "FOLDER") or action.dest in (
            "input",
            "file",
            "model",
            "source",
            "data",
            "labels",
        ):
            action.complete = shtab.DIRECTORY if action.metavar == "FOLDER" else shtab.FILE  # type: ignore[attr-defined]  # shtab reads it
    print(shtab.complete(parser, options.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                found += _actions(child)
    return found

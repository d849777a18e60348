from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cli.main import COMMANDS, build_parser, main

ROOT = Path(__file__).parents[3]


def children_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    action = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("command", [name for name, _, _ in COMMANDS])
def test_every_command_shows_examples(command: str) -> None:
    text = children_of(build_parser(command))[command].format_help()
    assert f"poolhouse {command}" in text
    assert "examples:" in text


def test_the_help_lists_commands_and_exit_codes() -> None:
    text = build_parser(None).format_help()
    assert all(name in text for name, _, _ in COMMANDS)
    assert "exit codes:" in text


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_is_a_script_that_the_shell_can_read(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name, _, _ in COMMANDS)
    assert "--part-lines" in script
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_bash_completes_commands_and_options() -> None:
    program = shutil.which("bash")
    if program is None:
        pytest.skip("bash is missing")
    ask = """
        eval "$("$1" -m cluster.cli.main completion bash)"
        complete_line() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            "$(complete -p poolhouse | sed 's/.*-F \\([^ ]*\\).*/\\1/')"; echo "${COMPREPLY[@]}"
        }
        complete_line poolhouse emb
        complete_line poolhouse embed --over
    """
    found = subprocess.run(
        [program, "-c", ask, "bash", sys.executable],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.strip() for line in found.stdout.splitlines()] == ["embed", "--overwrite"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing")
@pytest.mark.parametrize("arguments", [["models", "list"], ["completion", "bash"]])
def test_a_full_standard_output_is_a_sentence(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "cluster.cli.main", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 2
    assert "No space left on device" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1

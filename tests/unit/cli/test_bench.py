from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

from cluster.cli import bench as command
from cluster.errors import InvalidRequest
from tests.unit.benchmark.doubles import double


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(required=True), "help")
    options = parser.parse_args(["bench", *arguments])
    return int(options.run(options))


FAST = ("--warm-up", "0.05", "--requests", "8")


def test_two_servers_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    with double() as first, double(header=True) as second:
        assert run("short", f"ours={first.url}", f"other={second.url}", "--rounds", "2", *FAST) == 0
        assert {body["model"] for body in first.bodies} == {"double"}
        assert first.bodies[0]["input"] == second.bodies[0]["input"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["ours", "other"]


def test_json_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "plot.png"
    with double() as made:
        code = run(
            "rerank", made.url, "--json", "--plot", str(plot), "--field", 'top_n=3', "--field", "note=word",
            "--pid", str(os.getpid()), *FAST,
        )  # fmt: skip
    assert code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["servers"][made.url]["requests"] == pytest.approx(8)
    assert printed["servers"][made.url]["server_cpu_s"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert made.bodies[-1]["top_n"] == 3
    assert made.bodies[-1]["note"] == "word"


def test_errors_make_the_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with double(statuses=[500] * 1000) as made:
        assert run("short", made.url, "--model", "m", "--connections", "1", *FAST) == 1
    assert "500 × 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("short", "localhost"), "give --model"),
        (("short", "http://a", "--model", "m", "--pid", "1", "2"), "give one for each"),
        (("short", "http://a", "http://a", "--model", "m"), "two servers are called"),
        (("short", "http://a", "--model", "m", "--field", "lane"), "KEY=JSON"),
        (("batch", "http://127.0.0.1:9", "--model", "m", "--generator", "wrk"), "wrk"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        run(*arguments)


@pytest.mark.parametrize(
    "wrong", [("--rate", "0"), ("--connections", "-1"), ("--duration", "fast"), ("--warm-up", "nan")]
)
def test_numbers_are_checked(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("short", "http://a", *wrong)
    assert wrong[1] in capsys.readouterr().err

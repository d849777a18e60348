from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.benchmark.processes import cpu_seconds, difference, kind_of, tree_of
from cluster.errors import InvalidRequest

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def add(proc: Path, process: int, parent: int, command: str, user_s: float, system_s: float) -> None:
    folder = proc / str(process)
    folder.mkdir()
    times = f"{int(user_s * TICKS_PER_S)} {int(system_s * TICKS_PER_S)}"
    # A name may hold spaces and brackets.
    (folder / "stat").write_text(f"{process} (a (b) c) S {parent} 1 1 0 -1 0 0 0 0 0 {times} 0 0 20 0")
    (folder / "cmdline").write_bytes(command.replace(" ", "\0").encode())


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    add(tmp_path, 10, 1, "/venv/bin/python /venv/bin/serve run config.yaml", 1.0, 0.5)
    add(tmp_path, 11, 10, "/opt/raylet --flag", 2.0, 0.0)
    add(tmp_path, 12, 11, "ray::ServeReplica:poolhouse:Encoder-minilm", 30.0, 1.0)
    add(tmp_path, 13, 11, "ray::ServeReplica:poolhouse:Encoder-minilm", 10.0, 0.0)
    add(tmp_path, 20, 1, "/usr/bin/other", 99.0, 0.0)
    (tmp_path / "meminfo").write_text("")
    return tmp_path


def test_a_tree_is_the_process_and_all_below_it(proc: Path) -> None:
    assert sorted(tree_of(10, proc)) == [10, 11, 12, 13]


def test_cpu_time_is_summed_by_kind_of_process(proc: Path) -> None:
    assert cpu_seconds(10, proc) == {"serve": 1.5, "raylet": 2.0, "Encoder-minilm": 41.0}


def test_a_process_that_is_not_there_is_an_error(proc: Path) -> None:
    with pytest.raises(InvalidRequest, match="no process 77"):
        cpu_seconds(77, proc)


def test_the_difference_leaves_out_what_has_ended() -> None:
    assert difference({"a": 1.0, "b": 5.0}, {"a": 3.0, "b": 4.0, "c": 2.0}) == {"a": 2.0, "c": 2.0}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_this_very_process_has_taken_time() -> None:
    assert sum(cpu_seconds(os.getpid()).values()) > 0
    assert kind_of(os.getpid())

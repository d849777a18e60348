from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster.errors import ModelLoadError
from cluster.models.cache import cache_directory, make_once
from tests.unit.models.tiny import write_bert

# Says when it is about to ask for the file and when it begins to make it; ends making when it is told to.
_MAKER = """
import sys
from pathlib import Path
from cluster.models.cache import make_once

def make(path):
    path.write_text("made by " + sys.argv[2])
    print("making", flush=True)
    sys.stdin.readline()

print("asking", flush=True)
make_once(Path(sys.argv[1]), make, 0)
print("has it", flush=True)
"""
_CONVERTER = """
import resource, sys
from pathlib import Path
from cluster.models.cache import make_once
from cluster.models.convert import convert_bert

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
make_once(Path(sys.argv[1]), lambda path: convert_bert(Path(sys.argv[2]), path, "f32", name="tiny"), 0)
"""


Start = Callable[[Path, str], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def start_maker(path: Path, name: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", _MAKER, str(path), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start_maker


def _says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _left(directory: Path) -> list[str]:
    """What lies there but the lock, which has to stay."""
    return sorted(entry.name for entry in directory.iterdir() if not entry.name.endswith(".lock"))


def test_cache_directory_follows_the_variable_then_xdg_then_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path / "own" / "deep"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory() == tmp_path / "own" / "deep"
    assert cache_directory().is_dir()
    monkeypatch.delenv("POOLHOUSE_CACHE_DIR")
    assert cache_directory() == tmp_path / "xdg" / "poolhouse"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == tmp_path / "home" / ".cache" / "poolhouse"


def test_cache_directory_that_cannot_be_made_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelLoadError, match="set POOLHOUSE_CACHE_DIR"):
        cache_directory()


def test_file_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.gguf"
    calls: list[Path] = []

    def make(unfinished: Path) -> None:
        assert not path.exists()
        calls.append(unfinished)
        unfinished.write_text("whole")

    assert make_once(path, make, 0) == path
    assert make_once(path, make, 0) == path
    assert path.read_text() == "whole"
    assert len(calls) == 1
    assert calls[0].parent != path.parent
    assert _left(path.parent) == ["model.gguf"]


@pytest.mark.parametrize("failure", [ValueError("bad"), ModelLoadError("bad"), KeyboardInterrupt()])
def test_failing_maker_leaves_nothing_and_its_error_passes(tmp_path: Path, failure: BaseException) -> None:
    def make(unfinished: Path) -> None:
        unfinished.write_text("half")
        raise failure

    with pytest.raises(type(failure)):
        make_once(tmp_path / "model.gguf", make, 0)
    assert _left(tmp_path) == []


def test_maker_that_makes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot be made"):
        make_once(tmp_path / "model.gguf", lambda unfinished: None, 0)
    assert _left(tmp_path) == []


def test_next_try_after_a_failure_succeeds(tmp_path: Path) -> None:
    def fail(unfinished: Path) -> None:
        unfinished.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ModelLoadError, match="No space left on device; nothing was left behind"):
        make_once(tmp_path / "model.gguf", fail, 0)
    assert _left(tmp_path) == []
    make_once(tmp_path / "model.gguf", lambda unfinished: unfinished.write_text("whole") and None, 0)
    assert (tmp_path / "model.gguf").read_text() == "whole"


def test_conversion_that_the_system_stops_leaves_nothing(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    (tmp_path / "cache").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CONVERTER, str(tmp_path / "cache" / "m.gguf"), str(tmp_path / "bert")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ModelLoadError: m.gguf cannot be made" in done.stderr
    assert "(is the disk full?); nothing was left behind" in done.stderr
    assert _left(tmp_path / "cache") == []


def test_disk_that_is_too_small_is_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"MB free and model\.gguf needs 1000000000000 MB"):
        make_once(tmp_path / "model.gguf", lambda unfinished: pytest.fail("was called"), 10**18)
    assert _left(tmp_path) == []


def test_directory_that_cannot_be_written_is_a_readable_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelLoadError, match="cannot be made in"):
        make_once(tmp_path / "file" / "model.gguf", lambda unfinished: None, 0)


def test_lock_that_cannot_be_opened_is_a_readable_error(tmp_path: Path) -> None:
    (tmp_path / ".model.gguf.lock").mkdir()
    with pytest.raises(ModelLoadError, match="Is a directory"):
        make_once(tmp_path / "model.gguf", lambda unfinished: None, 0)


def test_two_processes_make_it_once(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "model.gguf"
    first = start(path, "first")
    assert _says(first) == "asking"
    assert _says(first) == "making"
    second = start(path, "second")
    assert _says(second) == "asking"
    assert not path.exists()
    first.communicate("\n", timeout=30)
    said, _ = second.communicate("\n", timeout=30)
    assert said.split() == ["has", "it"]
    assert (first.returncode, second.returncode) == (0, 0)
    assert path.read_text() == "made by first"
    assert _left(tmp_path) == ["model.gguf"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "model.gguf"
    killed = start(path, "killed")
    assert _says(killed) == "asking"
    assert _says(killed) == "making"
    killed.kill()
    killed.wait(timeout=30)
    assert len(_left(tmp_path)) == 1
    assert not path.exists()
    make_once(path, lambda unfinished: unfinished.write_text("whole") and None, 0)
    assert _left(tmp_path) == ["model.gguf"]
    assert path.read_text() == "whole"


def test_scratch_of_another_file_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / ".other.gguf.part-abc"
    other.mkdir()
    make_once(tmp_path / "model.gguf", lambda unfinished: unfinished.write_text("whole") and None, 0)
    assert _left(tmp_path) == [".other.gguf.part-abc", "model.gguf"]

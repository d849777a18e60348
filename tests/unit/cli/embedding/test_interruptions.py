"""What is done outlives the end of the process, however it ends; what goes on later is as if nothing had happened."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.api.application import create_application
from cluster.cli.embedding import journal as journal_module
from cluster.cli.embedding.journal import directory_of
from cluster.cli.main import main
from cluster.client import Client, Retries
from tests.support.pipelines import fake_config, local_pipeline
from tests.support.servers import served

LINES = 400
PART_LINES = 20
# Requests of ten lines: 40 in all.
OPTIONS = ("--request-items", "10", "--in-flight", "1", "--part-lines", str(PART_LINES), "--quiet")
ROOT = Path(__file__).parents[4]


@dataclass
class Gate:
    """Passes so many requests for vectors and holds, or refuses, all further ones until it is opened."""

    application: ASGIApp
    passes: int
    refuse: bool = False
    opened: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    requests: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/v1/embeddings" and not self.opened.is_set():
            self.requests += 1
            if self.requests > self.passes:
                self.held.set()
                if not self.refuse:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    return
                await send({"type": "http.response.start", "status": 503, "headers": []})
                await send({"type": "http.response.body", "body": b"down"})
                return
        await self.application(scope, receive, send)


@contextmanager
def gated_server(passes: int, *, refuse: bool = False) -> Iterator[tuple[Gate, str]]:
    with local_pipeline(fake_config()) as local:
        gate = Gate(create_application(local.pipeline, local.check_ready), passes, refuse)
        with served(gate) as url:
            yield gate, url


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Lines of which every 50th is empty."""
    path = tmp_path / "in.txt"
    path.write_text("".join("\n" if n % 50 == 7 else f"line number {n}\n" for n in range(LINES)), encoding="utf-8")
    return path


def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Client.__init__

    def patient_never(self: Client, *arguments: object, **options: object) -> None:
        original(self, *arguments, **{**options, "retries": Retries(count=0)})  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(Client, "__init__", patient_never)


def uninterrupted(texts: Path, tmp_path: Path, url: str) -> np.ndarray:
    assert main(["embed", str(texts), "--url", url, "--output", str(tmp_path / "whole.npy"), *OPTIONS]) == 1
    return np.asarray(np.load(tmp_path / "whole.npy"))


def assert_complete(output: Path, whole: np.ndarray) -> None:
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["line"] for row in rows] == list(range(1, LINES + 1))
    bad = np.isnan(whole).any(axis=1)
    assert [row["embedding"] is None for row in rows] == bad.tolist()
    found = np.asarray([row["embedding"] for row in rows if row["embedding"] is not None])
    assert np.einsum("ij,ij->i", found, whole[~bad]).min() >= 1 - 1e-6
    errors = output.with_name(output.name + ".errors.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(error)["line"] for error in errors] == [n + 1 for n in range(LINES) if n % 50 == 7]
    assert not directory_of(output).exists()


def test_a_killed_run_goes_on_behind_what_was_saved(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with gated_server(passes=15) as (gate, url):
        arguments = ["embed", str(texts), "--url", url, "--output", str(output), *OPTIONS]
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.cli.main", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        try:
            assert gate.held.wait(60)
        finally:
            process.send_signal(signal.SIGKILL)
            assert process.wait(30) == -signal.SIGKILL
        saved = len(list(directory_of(output).glob("part-*.npz")))
        assert 0 < saved < LINES // PART_LINES
        assert not output.exists()
        gate.opened.set()
        gate.requests = 0
        assert main(arguments) == 1
        assert_complete(output, uninterrupted(texts, tmp_path, url))


def test_what_was_saved_is_not_sent_again(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_waits(monkeypatch)
    with gated_server(passes=15, refuse=True) as (gate, url):
        arguments = ["embed", str(texts), "--url", url, "--output", str(tmp_path / "out.jsonl"), *OPTIONS]
        assert main(arguments) == 2
        gate.passes, gate.requests = 1000, 0
        assert main(arguments) == 1
        # 392 good lines; 150 came back before the server was gone.
        assert gate.requests == 25


def test_a_server_that_goes_half_way_is_named_with_the_line(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_waits(monkeypatch)
    output = tmp_path / "out.jsonl"
    with gated_server(passes=15, refuse=True) as (gate, url):
        arguments = ["embed", str(texts), "--url", url, "--output", str(output), *OPTIONS]
        assert main(arguments) == 2
        shown = capsys.readouterr().err
        assert "poolhouse: stopped after line 153: " in shown
        assert f"153 lines are kept in {directory_of(output)}; run the same command again to go on" in shown
        gate.opened.set()
        assert main(arguments) == 1
        assert_complete(output, uninterrupted(texts, tmp_path, url))


def test_standard_output_has_all_lines_before_the_fault(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    without_waits(monkeypatch)
    with gated_server(passes=2, refuse=True) as (_, url):
        assert main(["embed", str(texts), "--url", url, "--request-items", "10", "--in-flight", "1"]) == 2
    printed = capfd.readouterr()
    assert len(printed.out.splitlines()) == 21
    assert "stopped after line 21: " in printed.err
    assert "give --output FILE to have a run that can be continued" in printed.err


def test_a_run_that_did_nothing_leaves_nothing(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_waits(monkeypatch)
    assert main(["embed", str(texts), "--url", "http://127.0.0.1:1", "--output", str(tmp_path / "out.npy")]) == 2
    assert "no connection to" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


@pytest.fixture
def stopped(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """A run that stopped half-way; called, it goes on with further arguments."""
    without_waits(monkeypatch)
    with gated_server(passes=15, refuse=True) as (gate, url):
        arguments = ["embed", str(texts), "--url", url, "--output", str(tmp_path / "out.jsonl"), *OPTIONS]
        assert main(arguments) == 2
        gate.opened.set()
        yield lambda *more: main([*arguments, *more])


def test_an_input_that_was_changed_is_refused(
    stopped: Callable[..., int], texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts.write_text(texts.read_text(encoding="utf-8").replace("line number 30\n", "line number x\n"), encoding="utf-8")
    assert stopped() == 2
    assert "the input changed between line 21 and line 40" in capsys.readouterr().err
    assert stopped("--restart") == 1


def test_an_input_that_became_shorter_is_refused(
    stopped: Callable[..., int], texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts.write_text("line number 0\n", encoding="utf-8")
    assert stopped() == 2
    assert "the input changed between line 1 and line 20" in capsys.readouterr().err


def test_other_settings_are_refused(stopped: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped("--pooling", "cls") == 2
    assert 'was begun with --pooling left out and this command has "cls"' in capsys.readouterr().err
    assert stopped() == 1


def test_another_model_is_refused(
    stopped: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = fake_config()
    changed.models["fake"].prompts["document"] = "another prompt changes the fingerprint: "
    with local_pipeline(changed) as local, served(create_application(local.pipeline, local.check_ready)) as url:
        assert stopped("--url", url) == 2
    assert "they cannot be compared" in capsys.readouterr().err
    assert stopped() == 1


def test_a_damaged_part_is_named(
    stopped: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = directory_of(tmp_path / "out.jsonl") / "part-000001.npz"
    part.write_bytes(part.read_bytes()[:100])
    assert stopped() == 2
    assert f"{part} is damaged" in capsys.readouterr().err


def test_two_processes_do_not_write_one_output(
    stopped: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (directory_of(tmp_path / "out.jsonl") / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert stopped() == 2
    assert "another process is writing" in capsys.readouterr().err


def test_a_full_disk_keeps_what_was_saved(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    write_part = journal_module.write_part

    def full(path: Path, *arguments: object) -> object:
        if path.name == "part-000003.npz":
            raise OSError(28, "No space left on device")
        return write_part(path, *arguments)  # type: ignore[arg-type]  # as they came

    with gated_server(passes=1000) as (_, url):
        arguments = ["embed", str(texts), "--url", url, "--output", str(output), *OPTIONS]
        monkeypatch.setattr(journal_module, "write_part", full)
        assert main(arguments) == 2
        shown = capsys.readouterr().err
        assert "stopped after line 60: " in shown
        assert "No space left on device; free space" in shown
        monkeypatch.setattr(journal_module, "write_part", write_part)
        assert main(arguments) == 1
        assert_complete(output, uninterrupted(texts, tmp_path, url))


def test_an_output_that_cannot_be_written_in_the_end_loses_nothing(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    output = folder / "out.jsonl"
    blocker = folder / "out.jsonl.tmp"
    with gated_server(passes=1000) as (gate, url):
        arguments = ["embed", str(texts), "--url", url, "--output", str(output), *OPTIONS]
        blocker.mkdir()
        assert main(arguments) == 2
        assert "Everything is embedded and kept in" in capsys.readouterr().err
        blocker.rmdir()
        gate.requests = 0
        assert main(arguments) == 1
        assert gate.requests == 0
        assert_complete(output, uninterrupted(texts, tmp_path, url))

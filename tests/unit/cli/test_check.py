from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.cli.main import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path / "cache"))


def _file(tmp_path: Path, **encoder: str) -> str:
    args = {"models": {"m": {"source": "none"}}, "encoders": {"e": {"model": "m", "engine": "fake", **encoder}}}
    application = {"name": "app", "import_path": "deployments.app:build", "args": args}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"applications": [application]}), encoding="utf-8")
    return str(file)


def test_a_good_file_ends_with_good_and_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _file(tmp_path)
    assert main(["check", file]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"{file}: good"
    assert printed.err == ""


def test_faults_go_to_standard_error_with_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _file(tmp_path, wieght="2")
    assert main(["check", file]) == 1
    printed = capsys.readouterr()
    assert "good" not in printed.out
    assert "fault: applications.app.args: " in printed.err
    assert "encoders.e.wieght: unknown key (did you mean 'weight'?)" in printed.err
    assert printed.err.splitlines()[-1] == f"{file}: 1 fault(s)"


def test_a_file_that_cannot_be_read_is_an_error_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.startswith("poolhouse: ")

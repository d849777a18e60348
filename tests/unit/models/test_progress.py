from __future__ import annotations

import sys

import pytest

from cluster.models.progress import progress


def test_log_gets_one_line_at_each_end(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("converting tiny", 2, "tensor") as step:
        step(1)
        step(1)
    begin, end = capsys.readouterr().err.splitlines()
    assert begin == "converting tiny …"
    assert end.startswith("converting tiny: done in ")


def test_failure_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="bad"), progress("converting tiny", 2, "tensor"):
        raise ValueError("bad")
    assert capsys.readouterr().err == "converting tiny …\n"


def test_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("converting tiny", 4, "tensor") as step:
        for _ in range(4):
            step(1)
    shown = capsys.readouterr().err
    assert "converting tiny: 100%" in shown
    assert "4.00/4.00" in shown

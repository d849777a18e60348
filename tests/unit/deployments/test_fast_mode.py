from __future__ import annotations

import pytest

from deployments.fast_mode import FAST_MODE, missing_fast_mode, unguarded_proxy


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FAST_MODE.items():
        monkeypatch.setenv(name, value)
    assert missing_fast_mode() == []
    monkeypatch.delenv("RAY_SERVE_THROUGHPUT_OPTIMIZED")
    (line,) = missing_fast_mode()
    assert "set RAY_SERVE_THROUGHPUT_OPTIMIZED=1 before" in line


@pytest.mark.parametrize(
    ("haproxy", "program", "told"),
    [
        ("1", None, True),
        ("1", "/usr/sbin/haproxy", True),
        ("1", "/opt/venv/bin/poolhouse-haproxy", False),
        ("0", None, False),
    ],
)
def test_an_unguarded_haproxy_is_told(
    monkeypatch: pytest.MonkeyPatch, haproxy: str, program: str | None, told: bool
) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", haproxy)
    if program is None:
        monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH", raising=False)
    else:
        monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", program)
    assert bool(unguarded_proxy()) is told

from __future__ import annotations

import logging
from collections.abc import Iterator

import llama_cpp
import pytest

from cluster.engine.llama.library import available_gpu_layers


@pytest.fixture(autouse=True)
def nothing_said_yet() -> Iterator[None]:
    available_gpu_layers.cache_clear()
    yield
    available_gpu_layers.cache_clear()


@pytest.mark.parametrize("asked", [-1, 20])
def test_without_a_gpu_the_cpu_computes_and_that_is_said_once(
    asked: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: False)
    with caplog.at_level(logging.WARNING, logger="poolhouse"):
        assert [available_gpu_layers(asked) for _ in range(3)] == [0, 0, 0]
    [said] = caplog.messages
    assert f"gpu_layers is {asked}" in said
    assert "the model runs on the CPU" in said


def test_with_a_gpu_the_layers_go_there_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: True)
    assert available_gpu_layers(20) == 20
    assert available_gpu_layers(-1) > 100
    assert available_gpu_layers(0) == 0
    assert caplog.messages == []


def test_nothing_asked_is_nothing_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: False)
    assert available_gpu_layers(0) == 0
    assert caplog.messages == []

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

from cluster.engine.llama import machine


@pytest.fixture(autouse=True)
def _asked_again() -> Iterator[None]:
    for asked in (machine.build, machine.device):
        asked.cache_clear()
    yield
    for asked in (machine.build, machine.device):
        asked.cache_clear()


class _Ggml:
    """A library that sees these devices: (kind, description)."""

    def __init__(self, *devices: tuple[int, bytes]) -> None:
        self.ggml_version = lambda: b"1.2.3"
        self.ggml_commit = lambda: b"abc,def"
        self.ggml_backend_dev_count = lambda: len(devices)
        self.ggml_backend_dev_get = lambda index: index
        self.ggml_backend_dev_type = lambda index: devices[index][0]
        self.ggml_backend_dev_description = lambda index: devices[index][1]


def _with(monkeypatch: pytest.MonkeyPatch, ggml: Any, info: bytes = b"CPU : AVX = 1 | AVX2 = 1 | ") -> None:
    monkeypatch.setattr(llama_cpp.llama_cpp, "_lib", ggml)
    monkeypatch.setattr(llama_cpp, "llama_print_system_info", lambda: info)


CPU = (0, b"Intel(R) Xeon(R) Processor")


def test_this_machine_names_its_library_and_processor() -> None:
    build = machine.build(False)
    assert build.startswith(f"llama-cpp-python/{llama_cpp.__version__} ggml/")
    assert "CPU(" in build
    assert build.isascii()
    assert "," not in build
    assert "flags " in machine.device(False)


def test_the_build_lists_release_commit_instructions_and_the_gpus_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    info = b"CUDA : ARCHS = 900 | USE_GRAPHS = 1 | CPU : AVX = 1 | AVX2 = 1 | "
    _with(monkeypatch, _Ggml((1, "NVIDIA H200é".encode()), CPU), info)
    monkeypatch.setattr(llama_cpp, "__version__", "0.9")
    plain = "llama-cpp-python/0.9 ggml/1.2.3-abc?def CUDA(ARCHS=900+USE_GRAPHS) CPU(AVX+AVX2)"
    assert machine.build(False) == plain
    assert machine.build(True) == f"{plain} on NVIDIA H200?"


@pytest.mark.parametrize(
    ("one", "other", "on_gpu"),
    [
        ([CPU], [(0, b"AMD EPYC 9554")], False),
        ([CPU, (1, b"NVIDIA L4")], [CPU, (1, b"NVIDIA H200")], True),
        ([CPU, (1, b"NVIDIA L4")], [CPU, (1, b"NVIDIA L4"), (1, b"NVIDIA L4")], True),
    ],
)
def test_other_processors_and_gpus_are_other_devices(
    monkeypatch: pytest.MonkeyPatch, one: list[tuple[int, bytes]], other: list[tuple[int, bytes]], on_gpu: bool
) -> None:
    _with(monkeypatch, _Ggml(*one))
    first = machine.device(on_gpu)
    machine.device.cache_clear()
    _with(monkeypatch, _Ggml(*other))
    assert machine.device(on_gpu) != first


def test_gpus_that_are_not_used_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    _with(monkeypatch, _Ggml(CPU))
    first = machine.device(False)
    machine.device.cache_clear()
    _with(monkeypatch, _Ggml(CPU, (1, b"NVIDIA L4")))
    assert machine.device(False) == first


def test_processors_of_one_name_differ_by_their_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPU_INFO", told)
    devices = set()
    for line in ("flags\t: avx avx2", "flags\t: avx2 avx", "flags\t: avx avx2 amx", "Features\t: sve"):
        told.write_text(f"model name\t: one\n{line}\n")
        machine.device.cache_clear()
        devices.add(machine.device(False))
    told.unlink()
    machine.device.cache_clear()
    assert "flags unknown" in machine.device(False)
    assert len(devices) == 3


def test_the_driver_counts_where_a_gpu_computes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "version"
    monkeypatch.setattr(machine, "_GPU_DRIVER", told)
    _with(monkeypatch, _Ggml(CPU, (1, b"NVIDIA L4")))
    told.write_text("NVRM version: NVIDIA UNIX 550.54\nGCC version: 12\n")
    first, on_cpu = machine.device(True), machine.device(False)
    assert "550.54" in first
    assert "550.54" not in on_cpu
    told.write_text("NVRM version: NVIDIA UNIX 570.10\nGCC version: 12\n")
    machine.device.cache_clear()
    assert machine.device(True) != first


def test_a_library_without_these_functions_is_named_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    _with(monkeypatch, object())
    assert "ggml/unknown CPU(AVX+AVX2)" in machine.build(False)
    assert machine.device(True)

"""What computes: the library's build, the instructions that it uses, and the machine's devices."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import platform
import re
from pathlib import Path

import llama_cpp

from cluster.engine.llama import library

_CPU_INFO = Path("/proc/cpuinfo")
_GPU_DRIVER = Path("/proc/driver/nvidia/version")
# ggml's own numbers of kinds of devices.
_GPU_KINDS = (1, 2)


@functools.cache
def build(on_gpu: bool) -> str:
    """Return the library's releases and build, its instructions, and the GPUs where they compute.

    In ASCII and without commas, so that several can stand in one header:
    ``llama-cpp-python/0.3.36 ggml/0.25.3-0c1e570 CPU(AVX+AVX2+FMA)``.
    """
    library.start()
    ggml = "-".join(filter(None, (_ggml_text("ggml_version"), _ggml_text("ggml_commit")))) or "unknown"
    parts = [f"llama-cpp-python/{llama_cpp.__version__}", f"ggml/{ggml}", _instructions()]
    if on_gpu:
        parts.append(f"on {'+'.join(gpus())}")
    return re.sub(r"[^ -+\--~]", "?", " ".join(parts))


@functools.cache
def device(on_gpu: bool) -> str:
    """Return what the speed of this machine depends on: the processor and, where they compute, the GPUs and their driver."""
    library.start()
    parts = [platform.machine(), *_devices(gpu=False), f"flags {_cpu_flags()}"]
    if on_gpu:
        parts += [*gpus(), f"driver {_gpu_driver()}"]
    return "; ".join(parts)


def gpus() -> list[str]:
    """Return the names of the GPUs that this build can use."""
    return _devices(gpu=True)


def _instructions() -> str:
    """The library's account of its backends, ``CPU : AVX = 1 | AVX2 = 1 | ``, as ``CPU(AVX+AVX2)``."""
    printed = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
    backends: dict[str, list[str]] = {}
    backend = "CPU"
    for part in filter(None, (part.strip() for part in printed.split("|"))):
        named, colon, feature = part.rpartition(" : ")
        backend = named.strip() if colon else backend
        name, _, value = (text.strip() for text in feature.partition("="))
        backends.setdefault(backend, []).append(name if value == "1" else f"{name}={value}")
    return " ".join(f"{name}({'+'.join(features)})" for name, features in backends.items())


def _ggml_text(name: str) -> str:
    """What one of ggml's functions without arguments says; empty where this release has no such function."""
    function = getattr(llama_cpp.llama_cpp._lib, name, None)
    if function is None:
        return ""
    function.restype = ctypes.c_char_p
    return (function() or b"").decode("utf-8", "replace")


def _devices(*, gpu: bool) -> list[str]:
    """The descriptions of ggml's devices of one kind; none where this release cannot list them."""
    ggml = llama_cpp.llama_cpp._lib
    names = ("count", "get", "type", "description")
    try:
        count, get, kind, describe = (getattr(ggml, f"ggml_backend_dev_{name}") for name in names)
    except AttributeError:
        return [] if gpu else [platform.processor()]
    count.restype, get.restype, describe.restype = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
    get.argtypes, kind.argtypes, describe.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_void_p]
    found = [get(index) for index in range(count())]
    return [
        (describe(each) or b"").decode("utf-8", "replace").strip()
        for each in found
        if (int(kind(each)) in _GPU_KINDS) is gpu
    ]


def _cpu_flags() -> str:
    """A digest of the processor's features: clouds give processors of several generations one name."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        # No Linux: the name has to do.
        return "unknown"
    told = next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(" ".join(sorted(told.split())).encode()).hexdigest()[:12]


def _gpu_driver() -> str:
    try:
        return " ".join(_GPU_DRIVER.read_text(encoding="utf-8", errors="replace").partition("\n")[0].split())
    except OSError:
        # Another maker's, or another system.
        return "unknown"

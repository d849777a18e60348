"""The library as a process-wide thing: its log, and loading a model file from it."""

from __future__ import annotations

import ctypes
import functools
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llama_cpp

from cluster.errors import ModelLoadError

logger = logging.getLogger("poolhouse")

_WARN_LEVEL = 3
_complaints: deque[str] = deque(maxlen=20)


# llama_cpp has no types.
@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    # llama.cpp prints hundreds of lines for every load; only complaints are kept, to be quoted when a call fails.
    if level >= _WARN_LEVEL:
        line = text.decode("utf-8", "replace").strip()
        if line:
            _complaints.append(line)


@functools.cache
def start() -> None:
    """Initialise the library once for this process."""
    llama_cpp.llama_log_set(_on_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()


def complaints() -> str:
    """Return what llama.cpp last complained of, in one line."""
    return "; ".join(list(_complaints)[-3:]) or "llama.cpp gave no reason"


def load_model(
    path: Path, *, vocabulary_only: bool, gpu_layers: int = 0, overrides: Mapping[str, bool] | None = None
) -> Any:
    """Return a ``llama_model_p``; ``overrides`` take the place of the GGUF's own keys.

    Raises:
        ModelLoadError: the file is missing, is no GGUF, is cut short, or holds an unknown architecture.
    """
    start()
    if not path.is_file():
        raise ModelLoadError(f"there is no file {path}; give the path of a GGUF file")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ModelLoadError(f"{path} is not a GGUF file (it begins with {magic!r}); convert the model first")
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = vocabulary_only
    params.n_gpu_layers = available_gpu_layers(gpu_layers)
    kept = _override_array(overrides or {})
    params.kv_overrides = ctypes.cast(kept, ctypes.POINTER(llama_cpp.llama_model_kv_override))
    _complaints.clear()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ModelLoadError(f"llama.cpp cannot load {path}: {complaints()}")
    return model


def _override_array(overrides: Mapping[str, bool]) -> Any:
    # llama.cpp reads up to an entry with an empty key.
    array = (llama_cpp.llama_model_kv_override * (len(overrides) + 1))()
    for entry, (key, value) in zip(array, overrides.items(), strict=False):
        entry.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_BOOL
        entry.key = key.encode()
        entry.value.val_bool = value
    return array


def metadata(model: Any, key: str) -> str | None:
    """Return one of the GGUF's values as text, or None where it has no such key."""
    buffer = ctypes.create_string_buffer(4096)
    length = llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if length >= 0 else None


@functools.cache
def available_gpu_layers(asked: int) -> int:
    """Return how many layers go to the GPU: those asked for (-1: all), or 0 where there is no GPU, which is said once."""
    if asked == 0:
        return 0
    if not llama_cpp.llama_supports_gpu_offload():
        logger.warning(
            "gpu_layers is %d, but this llama.cpp build sees no GPU; the model runs on the CPU. "
            "Install llama-cpp-python with CMAKE_ARGS=-DGGML_CUDA=on, or set gpu_layers: 0",
            asked,
        )
        return 0
    return 999 if asked < 0 else asked

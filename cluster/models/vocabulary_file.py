"""A model's vocabulary as a GGUF of its own: all metadata and no tensor, a few megabytes whatever the model's size."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from cluster.errors import ModelLoadError
from cluster.models.header import read_header

_VERSION = 3


def vocabulary_of(path: Path) -> bytes:
    """Return the head of a GGUF as a whole GGUF without tensors, from which llama.cpp loads the same vocabulary.

    Layout as the GGUF specification has it: magic, version, numbers of tensors and of pairs, the pairs.

    Raises:
        ModelLoadError: ``path`` cannot be read or is no GGUF.
    """
    spans = read_header(path).spans.values()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            pairs = [data[begin:end] for begin, end in spans]
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror or error}") from error
    return b"GGUF" + struct.pack("<IQQ", _VERSION, 0, len(pairs)) + b"".join(pairs)

"""A model's vocabulary as a GGUF of its own: all metadata and no tensor, a few megabytes whatever the model's size."""

from __future__ import annotations

import mmap
from pathlib import Path

from cluster.errors import ModelLoadError
from cluster.models.header import begin_gguf, read_header


def vocabulary_of(path: Path) -> bytes:
    """Return the head of a GGUF as a whole GGUF without tensors, from which llama.cpp loads the same vocabulary.

    Raises:
        ModelLoadError: ``path`` cannot be read or is no GGUF.
    """
    spans = read_header(path).spans.values()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            pairs = [data[begin:end] for begin, end in spans]
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror or error}") from error
    return begin_gguf(0, pairs)

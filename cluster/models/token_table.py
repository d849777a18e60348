"""A model's token embeddings, looked up in its GGUF without loading the table."""

from __future__ import annotations

import mmap
from pathlib import Path

import gguf
import numpy as np

from cluster.errors import ModelLoadError
from cluster.models.header import TensorEntry, read_header
from cluster.types import Float32, Int32

TOKEN_TABLE = "token_embd.weight"
TOKEN_TYPES = "token_types.weight"


class TokenTable:
    """The rows of ``token_embd.weight``, mapped from the file: only the pages of rows that are looked up take memory.

    Args:
        input_scale: what every row is multiplied with, for graphs that scale ids' embeddings but not given ones.

    Attributes:
        size: valid ids are ``0 … size - 1``.
        width: values of a row.

    Raises:
        ModelLoadError: the file has no such table, or stores it in a way that cannot be read here.
    """

    def __init__(self, path: Path, input_scale: float = 1.0) -> None:
        entry = read_header(path).tensors.get(TOKEN_TABLE)
        if entry is None or len(entry.shape) != 2:
            raise ModelLoadError(f"{path} has no tensor {TOKEN_TABLE} of two axes; it is not a text model")
        self.size, self.width = entry.shape
        self._kind = entry.kind
        self._input_scale = np.float32(input_scale)
        first_page = entry.begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        with path.open("rb") as file:
            self._map = mmap.mmap(
                file.fileno(), entry.begin - first_page + entry.size_bytes, access=mmap.ACCESS_READ, offset=first_page
            )
        # Rows are met in no order, so reading ahead would only fill memory.
        self._map.madvise(mmap.MADV_RANDOM)
        self._stored = np.ndarray(
            (self.size, entry.size_bytes // self.size),
            dtype=np.uint8,
            buffer=self._map,
            offset=entry.begin - first_page,
        )
        _dequantise(self._stored[:1], entry, path)

    def rows(self, token_ids: Int32) -> Float32:
        """Return the embeddings, float32 ``[n, width]``, equal to the bit to llama.cpp's; every id must be valid."""
        rows: Float32 = gguf.quants.dequantize(self._stored[token_ids], self._kind)
        return rows if self._input_scale == 1.0 else rows * self._input_scale


def read_token_types(path: Path) -> Float32 | None:
    """Return the embeddings of a BERT's token types, float32 ``[n_types, width]``, or None where it has none.

    Raises:
        ModelLoadError: they are stored in a way that cannot be read here.
    """
    entry = read_header(path).tensors.get(TOKEN_TYPES)
    if entry is None:
        return None
    with path.open("rb") as file:
        file.seek(entry.begin)
        stored = np.frombuffer(file.read(entry.size_bytes), dtype=np.uint8)
    return _dequantise(stored.reshape(entry.shape[0], -1), entry, path)


def _dequantise(stored: np.ndarray, entry: TensorEntry, path: Path) -> Float32:
    try:
        rows: Float32 = gguf.quants.dequantize(stored, entry.kind)
    except NotImplementedError as error:
        # What the library says of a type that it cannot read.
        raise ModelLoadError(f"{path} stores its embeddings as {entry.kind.name}, which cannot be read here") from error
    return rows

"""What one llama.cpp call reads, as NumPy arrays."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np

from cluster.types import Float32, Int32, Int64


class Batch:
    """A ``llama_batch`` over NumPy arrays, filled without a Python loop over tokens."""

    def __init__(self, capacity_tokens: int) -> None:
        self._position = np.zeros(capacity_tokens, dtype=np.int32)
        self._sequence = np.zeros(capacity_tokens, dtype=np.int32)
        self._count = np.ones(capacity_tokens, dtype=np.int32)
        self._output = np.ones(capacity_tokens, dtype=np.int8)
        # llama.cpp wants a pointer to each token's list of sequences; each list has one member here.
        self._pointers = (self._sequence.ctypes.data + 4 * np.arange(capacity_tokens, dtype=np.uintp)).astype(np.uintp)
        self._tokens: np.ndarray = np.zeros(0, dtype=np.int32)
        self.struct = llama_cpp.llama_batch()
        self.struct.pos = _pointer(self._position, ctypes.c_int32)
        self.struct.n_seq_id = _pointer(self._count, ctypes.c_int32)
        self.struct.seq_id = self._pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        self.struct.logits = _pointer(self._output, ctypes.c_int8)

    def fill(self, tokens: Int32 | Float32, lengths: Int64, first_position: int = 0) -> None:
        """Make it hold consecutive sequences 0, 1, ….

        Args:
            tokens: int32 ids ``[total_tokens]``, or float32 embeddings ``[total_tokens, width]``, read where they lie.
            lengths: int64 ``[n]``, tokens of each sequence.
            first_position: of each sequence's first token.
        """
        total = len(tokens)
        begins = np.cumsum(lengths) - lengths
        self._position[:total] = np.arange(first_position, first_position + total) - np.repeat(begins, lengths)
        self._sequence[:total] = np.repeat(np.arange(len(lengths)), lengths)
        self._tokens = np.ascontiguousarray(tokens)
        embedded = self._tokens.ndim == 2
        self.struct.token = None if embedded else _pointer(self._tokens, ctypes.c_int32)
        self.struct.embd = _pointer(self._tokens, ctypes.c_float) if embedded else None
        self.struct.n_tokens = total


def _pointer(array: np.ndarray, kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))

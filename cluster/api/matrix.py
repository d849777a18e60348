"""Vectors and token matrices as NumPy's ``.npy`` format: a tenth of JSON's size for a token matrix."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from cluster.api.responses import Piece
from cluster.calls import EmbedAnswer, OutputType
from cluster.types import offsets_of

# Proxies and clients hold a response's header to 8 or 16 KiB in all.
_MAX_HEADER_CHARACTERS = 4_096

_DTYPES: dict[OutputType, np.dtype[Any]] = {
    OutputType.FLOAT: np.dtype("<f4"),
    OutputType.INT8: np.dtype("i1"),
    OutputType.UINT8: np.dtype("u1"),
    OutputType.BINARY: np.dtype("i1"),
    OutputType.UBINARY: np.dtype("u1"),
}


def format_npy(answer: EmbedAnswer, output_type: OutputType) -> tuple[list[Piece], dict[str, str]]:
    """Print all items' rows, then what belongs to them, as ``.npy`` arrays one behind the other (``np.load`` reads on).

    Returns:
        The arrays, in pieces: rows ``[rows, width]``; offsets int64 ``[n + 1]``, item i being rows ``offsets[i]`` to
        ``offsets[i + 1]``; tokens int64 ``[n]``; truncated tokens int64 ``[n]``. And the header ``x-poolhouse-offsets``, which
        repeats the offsets where they take at most 4,096 characters.
    """
    dtype = _DTYPES[output_type]
    rows = [shape[0] if len(shape) == 2 else 1 for shape in answer.shapes]
    total = sum(rows)
    width = sum(len(piece) for piece in answer.pieces) // (dtype.itemsize * total)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (total, width)}
    )
    offsets = offsets_of(rows)
    tail = io.BytesIO()
    for numbers in (offsets, answer.tokens, answer.cut_tokens):
        np.save(tail, np.asarray(numbers, dtype="<i8"), allow_pickle=False)
    # An offset takes two characters at least.
    printed = ",".join(map(str, offsets.tolist())) if 2 * len(offsets) <= _MAX_HEADER_CHARACTERS + 1 else None
    fits = printed is not None and len(printed) <= _MAX_HEADER_CHARACTERS
    headers = {"x-poolhouse-offsets": printed} if printed is not None and fits else {}
    return [head.getvalue(), *answer.pieces, tail.getvalue()], headers

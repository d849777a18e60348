"""Vectors and token matrices as NumPy's ``.npy`` format: a tenth of JSON's size for a token matrix."""

from __future__ import annotations

import io

import numpy as np

from cluster.calls import EmbedAnswer, OutputType
from cluster.types import offsets_of

_DTYPES = {
    OutputType.FLOAT: np.dtype("<f4"),
    OutputType.INT8: np.dtype("i1"),
    OutputType.UINT8: np.dtype("u1"),
    OutputType.BINARY: np.dtype("i1"),
    OutputType.UBINARY: np.dtype("u1"),
}


def format_npy(answer: EmbedAnswer, output_type: OutputType) -> tuple[bytes, dict[str, str]]:
    """Print all items' rows one after the other as one ``.npy`` array.

    Returns:
        The file ``[rows, width]``, and for token matrices the header ``x-poolhouse-offsets``: n + 1 row numbers, item i being
        rows ``offsets[i]`` to ``offsets[i + 1]``.
    """
    dtype = _DTYPES[output_type]
    rows = [shape[0] if len(shape) == 2 else 1 for shape in answer.shapes]
    total = sum(rows)
    width = sum(len(piece) for piece in answer.pieces) // (dtype.itemsize * total)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (total, width)}
    )
    offsets = ",".join(str(offset) for offset in offsets_of(rows).tolist())
    return head.getvalue() + b"".join(answer.pieces), {"x-poolhouse-offsets": offsets}

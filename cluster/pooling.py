"""Pooling: hidden states → vectors, and what is done to a vector afterwards.

none, mean, cls and last follow llama.cpp's graph (``llm_graph_context::build_pooling``): mean weighs *all* tokens of a
sequence alike, special ones included; cls is the token at the smallest position, not a search for ``[CLS]``; last is the
token at the largest position. ``weighted`` is ours and has nothing to do with llama.cpp's ``rank``, which is a
classification head (see ``cluster.rerank``): it is the position-weighted mean of SGPT (Muennighoff 2022, equation 2),
``Σ i·hᵢ / Σ i`` with i = 1 … n.

Normalisation follows llama.cpp's ``common_embd_normalize``.
"""

from __future__ import annotations

import base64

import numpy as np
import orjson
from numpy.typing import NDArray

from cluster.calls import AnswerOptions, Encoding, OutputType
from cluster.types import Float32, Int32, Int64, PoolingType, UInt8, offsets_of

_MAX_ABSOLUTE_SCALE = 32_760.0

# Printed in about a millisecond. A block of bytes has no remainder by three, so that base64 pads the last one only.
_BLOCK_VALUES = 16_384
_BLOCK_BYTES = 3 * 65_536


def pool(hidden: Float32, offsets: Int64, pooling: UInt8) -> tuple[Float32, Int64, Int32]:
    """Reduce each sequence's hidden states as its pooling type says.

    Args:
        hidden: float32 ``[total_tokens, dimensions]``.
        offsets: int64 ``[n + 1]`` into the rows of ``hidden``; no sequence is empty.
        pooling: uint8 ``[n]``, ``PoolingType.code`` of none, mean, cls, last or weighted.

    Returns:
        Values float32 ``[total]``, their offsets int64 ``[n + 1]`` and the items' widths int32 ``[n]``.

    Raises:
        ValueError: rank, which no hidden state yields.
    """
    dimensions = hidden.shape[1]
    widths = np.full(len(pooling), dimensions, dtype=np.int32)
    if (pooling == PoolingType.RANK.code).any():
        raise ValueError("rank is a classification head's score and is not pooled from hidden states")
    none = pooling == PoolingType.NONE.code
    if none.all():
        return hidden.reshape(-1), offsets * dimensions, widths
    rows = np.where(none, np.diff(offsets), 1)
    starts = offsets_of(rows)
    out = np.empty((int(starts[-1]), dimensions), dtype=np.float32)
    for item, code in enumerate(pooling.tolist()):
        sequence = hidden[offsets[item] : offsets[item + 1]]
        out[starts[item] : starts[item + 1]] = _REDUCE[code](sequence)
    return out.reshape(-1), starts * dimensions, widths


def pool_one(hidden: Float32, pooling: PoolingType) -> Float32:
    """Pool one sequence: float32 ``[n_tokens, dimensions]`` → ``[n_tokens, dimensions]`` for none, else ``[dimensions]``."""
    return _REDUCE[pooling.code](hidden)


def _none(sequence: Float32) -> Float32:
    return sequence


def _mean(sequence: Float32) -> Float32:
    return np.asarray(sequence.mean(axis=0, dtype=np.float32))


def _cls(sequence: Float32) -> Float32:
    return np.asarray(sequence[0])


def _last(sequence: Float32) -> Float32:
    return np.asarray(sequence[-1])


def _weighted(sequence: Float32) -> Float32:
    weights = np.arange(1, len(sequence) + 1, dtype=np.float32)
    return np.asarray(weights @ sequence / weights.sum(), dtype=np.float32)


_REDUCE = {
    PoolingType.NONE.code: _none,
    PoolingType.MEAN.code: _mean,
    PoolingType.CLS.code: _cls,
    PoolingType.LAST.code: _last,
    PoolingType.WEIGHTED.code: _weighted,
}


def normalize(vectors: Float32, p: float) -> Float32:
    """Normalise the rows of float32 ``[n, dimensions]`` as llama.cpp's ``embd_normalize`` does.

    Args:
        vectors: rows to normalise; left untouched.
        p: -1 none, 0 max-absolute to int16's range (``x / (max|x| / 32760)``), 1 taxicab, 2 Euclidean, p > 2 p-norm.

    Returns:
        float32 ``[n, dimensions]``; rows of norm zero become zeros.
    """
    if p < 0:
        return vectors
    wide = vectors.astype(np.float64)
    if p == 0:
        norms = np.abs(wide).max(axis=1, keepdims=True, initial=0.0) / _MAX_ABSOLUTE_SCALE
    elif p == 2:
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    else:
        # Scaled by the largest member first: x ** p leaves float64's range for a large p.
        largest = np.abs(wide).max(axis=1, keepdims=True, initial=0.0)
        scaled = np.divide(np.abs(wide), largest, out=np.zeros_like(wide), where=largest > 0)
        norms = largest * np.power(np.power(scaled, p).sum(axis=1, keepdims=True), 1.0 / p)
    result = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    return np.asarray(result, dtype=np.float32)


def cut_dimensions(vectors: Float32, dimensions: int, p: float) -> Float32:
    """Keep the first ``dimensions`` of each row (Matryoshka) and normalise again, float32 ``[n, dimensions]``."""
    return normalize(np.ascontiguousarray(vectors[:, :dimensions]), p)


def quantize(vectors: Float32, output_type: OutputType) -> NDArray[np.generic]:
    """Convert rows to a smaller type.

    int8 is ``round(127·x)`` for x in [-1, 1] (values outside are clipped), uint8 is int8 + 128. ubinary packs eight
    dimensions into a byte, MSB first, bit = 1 where x > 0 (so not for either zero, nor for NaN), padded with zeros; binary is
    ubinary - 128 as int8.

    Returns:
        float32, int8 or uint8 ``[n, dimensions]``, or int8 or uint8 ``[n, ceil(dimensions / 8)]`` for the binary kinds.
    """
    if output_type is OutputType.FLOAT:
        return vectors
    if output_type in (OutputType.INT8, OutputType.UINT8):
        scaled = np.clip(np.rint(vectors * 127.0), -127, 127).astype(np.int16)
        kind = np.int8 if output_type is OutputType.INT8 else np.uint8
        return np.asarray(scaled + (0 if kind is np.int8 else 128), dtype=kind)
    packed = np.packbits(vectors > 0, axis=-1)
    return packed if output_type is OutputType.UBINARY else (packed.astype(np.int16) - 128).astype(np.int8)


def print_rows(rows: Float32, options: AnswerOptions) -> bytes | bytearray:
    """Print float32 ``[dimensions]`` or ``[rows, dimensions]`` as the request asks.

    JSON prints each number with the fewest digits that give the same float32 back; base64 and raw are little-endian. Much is
    printed block by block.
    """
    numbers = np.ascontiguousarray(quantize(rows, options.output_type))
    if options.encoding is Encoding.JSON:
        return _json(numbers)
    raw = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)
    flat = raw.reshape(-1).view(np.uint8)
    if options.encoding is Encoding.RAW:
        if flat.size <= _BLOCK_BYTES:
            return flat.tobytes()
        whole = bytearray(flat.size)
        np.frombuffer(whole, dtype=np.uint8)[:] = flat
        return whole
    view = flat.data
    return _whole([base64.b64encode(view[begin : begin + _BLOCK_BYTES]) for begin in range(0, flat.size, _BLOCK_BYTES)])


def _json(numbers: NDArray[np.generic]) -> bytes | bytearray:
    """Print an array in blocks: one call would keep the interpreter's lock, and so every other thread, until its end."""
    if numbers.size <= _BLOCK_VALUES:
        return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)
    rows = numbers.reshape(-1, numbers.shape[-1])
    step = max(1, _BLOCK_VALUES // rows.shape[1])
    blocks = [b"["]
    for row in range(0, len(rows), step):
        block = rows[row : row + step]
        if len(block) == 1:
            for begin in range(0, block.shape[1], _BLOCK_VALUES):
                part = orjson.dumps(block[0, begin : begin + _BLOCK_VALUES], option=orjson.OPT_SERIALIZE_NUMPY)
                blocks.append(part[:-1] if begin == 0 else b"," + part[1:-1])
            blocks.append(b"]")
        else:
            blocks.append(orjson.dumps(block, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
        blocks.append(b",")
    blocks[-1] = b"]"
    return _whole(blocks if numbers.ndim > 1 else blocks[1:-1])


def _whole(blocks: list[bytes]) -> bytes | bytearray:
    """Join blocks one by one: a join of many megabytes would keep the interpreter's lock, too."""
    if len(blocks) <= 1:
        return blocks[0] if blocks else b""
    whole = bytearray(sum(map(len, blocks)))
    end = 0
    for block in blocks:
        whole[end : end + len(block)] = block
        end += len(block)
    return whole

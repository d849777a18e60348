"""The operations of llama.cpp's graphs in NumPy, float64 throughout except where llama.cpp rounds to float16.

A value next to a rounding boundary may fall on the other side there, since llama.cpp sums in float32. One such flip moves
hidden states of unit variance by up to 0.0015 behind a KV cache, by up to 0.0006 elsewhere, and most not at all.

Attention is that without flash attention. With it (llama.cpp's default) the CPU kernels also sum values in float16, in an
order that depends on the batch's shape: hidden states of unit variance move by up to 0.004.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

_GELU_TABLE_LIMIT = 10.0


def layer_norm(x: Float64, weight: Float64, bias: Float64 | None, epsilon: float) -> Float64:
    """Centre and scale the last axis by its own mean and population variance, then apply weight and bias."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled: Float64 = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * weight
    return scaled if bias is None else scaled + bias


def rms_norm(x: Float64, weight: Float64, epsilon: float) -> Float64:
    """Divide the last axis by its root mean square, then apply the weight."""
    scaled: Float64 = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * weight
    return scaled


def gelu(x: Float64) -> Float64:
    """The tanh approximation; ggml's CPU kernels look it up in a table from float16 to float16 within -10 … 10."""
    half = _half(np.clip(x, -_GELU_TABLE_LIMIT, _GELU_TABLE_LIMIT))
    table = _half(0.5 * half * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * half * (1.0 + 0.044715 * half**2))))
    return np.where(x <= -_GELU_TABLE_LIMIT, 0.0, np.where(x >= _GELU_TABLE_LIMIT, x, table))


def silu(x: Float64) -> Float64:
    """``x`` times its logistic function."""
    return x / (1.0 + np.exp(-x))


def softmax(x: Float64) -> Float64:
    """Over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    total: Float64 = powers / powers.sum(axis=-1, keepdims=True)
    return total


def rope(x: Float64, base: float) -> Float64:
    """Rotate ``[n_tokens, n_heads, head_dim]`` by position; value i pairs with value i + head_dim / 2 (NeoX order)."""
    n_tokens, _, width = x.shape
    frequency = base ** (-2.0 * np.arange(width // 2) / width)
    angle = (np.arange(n_tokens)[:, None] * frequency)[:, None, :]
    first, second = x[..., : width // 2], x[..., width // 2 :]
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=-1)


def full_mask(n_tokens: int) -> Mask:
    """Every token sees every token, bool ``[n_tokens, n_tokens]``."""
    return np.ones((n_tokens, n_tokens), dtype=np.bool_)


def causal_mask(n_tokens: int) -> Mask:
    """A token sees itself and those before it."""
    return np.tril(full_mask(n_tokens))


def window_mask(n_tokens: int, window: int) -> Mask:
    """A token sees those at most ``window // 2`` away on either side."""
    position = np.arange(n_tokens)
    mask: Mask = np.abs(position[:, None] - position[None, :]) <= window // 2
    return mask


def attention(q: Float64, k: Float64, v: Float64, mask: Mask, *, kv_cache: bool) -> Float64:
    """Return ``[n_tokens, n_heads * head_dim]``.

    Args:
        q: ``[n_tokens, n_heads, head_dim]``.
        k, v: ``[n_tokens, n_kv_heads, head_dim]``; each serves ``n_heads / n_kv_heads`` consecutive query heads.
        mask: true where row attends to column.
        kv_cache: keys and values come from llama.cpp's float16 cache, which makes it round what meets them alike.
    """
    if kv_cache:
        q, k, v = _half(q), _half(k), _half(v)
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[2])
    weights = softmax(np.where(mask, scores, -np.inf))
    if kv_cache:
        weights = _half(weights)
    values: Float64 = np.einsum("hqk,khd->qhd", weights, v).reshape(len(q), -1)
    return values


def _half(x: Float64) -> Float64:
    return x.astype(np.float16).astype(np.float64)

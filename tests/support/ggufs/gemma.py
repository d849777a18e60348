"""An EmbeddingGemma: Gemma 3 without a causal mask, local attention in all but every n-th layer, no dense modules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from tests.support.ggufs.numerics import Float64, attention, full_mask, gelu, rms_norm, rope, window_mask
from tests.support.ggufs.reference import Ids, ReferenceModel, Tensors, write_gguf
from tests.support.ggufs.vocabularies import sentence_piece

WIDTH, INNER, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD_WIDTH = 64, 128, 2, 3, 1, 32
CONTEXT_TOKENS = 256
GLOBAL_EVERY = 2
WINDOW = 8
GLOBAL_ROPE_BASE, LOCAL_ROPE_BASE = 1_000_000.0, 10_000.0
EPSILON = 1e-6


@dataclass(frozen=True)
class GemmaEmbeddingReference(ReferenceModel):
    """Encoder with norms before and after attention and feed-forward, trained for mean pooling."""

    def hidden(self, ids: Ids, token_types: Ids | None = None) -> Float64:
        """See ``ReferenceModel.hidden``; there are no token types."""
        x = self.weights["token_embd.weight"][np.asarray(ids)] * np.sqrt(WIDTH)
        for layer in range(LAYERS):
            block = f"blk.{layer}"
            # Here the last layer of each group is the global one.
            is_global = layer % GLOBAL_EVERY == GLOBAL_EVERY - 1
            base = GLOBAL_ROPE_BASE if is_global else LOCAL_ROPE_BASE
            mask = full_mask(len(x)) if is_global else window_mask(len(x), WINDOW)
            normed = self._norm(f"{block}.attn_norm", x)
            q, k, v = (self.project(f"{block}.attn_{part}", normed).reshape(len(x), -1, HEAD_WIDTH) for part in "qkv")
            q = rope(self._norm(f"{block}.attn_q_norm", q), base)
            k = rope(self._norm(f"{block}.attn_k_norm", k), base)
            attended = self.project(f"{block}.attn_output", attention(q, k, v, mask, kv_cache=False))
            x = x + self._norm(f"{block}.post_attention_norm", attended)
            normed = self._norm(f"{block}.ffn_norm", x)
            inner = gelu(self.project(f"{block}.ffn_gate", normed)) * self.project(f"{block}.ffn_up", normed)
            x = x + self._norm(f"{block}.post_ffw_norm", self.project(f"{block}.ffn_down", inner))
        return self._norm("output_norm", x)

    def _norm(self, name: str, x: Float64) -> Float64:
        return rms_norm(x, self.weights[f"{name}.weight"], EPSILON)


def write_gemma_embedding(path: Path, *, seed: int = 0, half: bool = False) -> GemmaEmbeddingReference:
    """Write an embedding model of 64 dimensions, as it converts without its sentence-transformers dense modules."""
    vocabulary = sentence_piece()

    def describe(writer: gguf.GGUFWriter) -> None:
        writer.add_context_length(CONTEXT_TOKENS)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KEY_VALUE_HEADS)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_key_length(HEAD_WIDTH)
        writer.add_value_length(HEAD_WIDTH)
        writer.add_rope_freq_base(GLOBAL_ROPE_BASE)
        writer.add_rope_freq_base_swa(LOCAL_ROPE_BASE)
        writer.add_sliding_window(WINDOW)
        writer.add_sliding_window_pattern(GLOBAL_EVERY)
        writer.add_pooling_type(gguf.PoolingType.MEAN)

    tensors = Tensors(seed)
    # Scaled by the root of the width in the graph, so that the first layer sees entries near 1.
    tensors.table("token_embd", len(vocabulary), WIDTH, 1.0 / np.sqrt(WIDTH))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        tensors.norm(f"{block}.attn_norm", WIDTH)
        tensors.linear(f"{block}.attn_q", HEADS * HEAD_WIDTH, WIDTH)
        tensors.linear(f"{block}.attn_k", KEY_VALUE_HEADS * HEAD_WIDTH, WIDTH)
        tensors.linear(f"{block}.attn_v", KEY_VALUE_HEADS * HEAD_WIDTH, WIDTH)
        tensors.linear(f"{block}.attn_output", WIDTH, HEADS * HEAD_WIDTH)
        tensors.norm(f"{block}.post_attention_norm", WIDTH)
        tensors.norm(f"{block}.attn_q_norm", HEAD_WIDTH)
        tensors.norm(f"{block}.attn_k_norm", HEAD_WIDTH)
        tensors.norm(f"{block}.ffn_norm", WIDTH)
        tensors.linear(f"{block}.ffn_gate", INNER, WIDTH)
        tensors.linear(f"{block}.ffn_up", INNER, WIDTH)
        tensors.linear(f"{block}.ffn_down", WIDTH, INNER, gain=0.5)
        tensors.norm(f"{block}.post_ffw_norm", WIDTH)
    tensors.norm("output_norm", WIDTH)
    weights = write_gguf(path, "gemma-embedding", tensors, describe, vocabulary.describe, half=half)
    return GemmaEmbeddingReference(path, weights)

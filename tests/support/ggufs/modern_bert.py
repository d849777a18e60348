"""A ModernBERT cross-encoder: rotary positions, global attention in every third layer, gated feed-forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from tests.support.ggufs.numerics import Float64, attention, full_mask, gelu, layer_norm, rope, window_mask
from tests.support.ggufs.reference import Ids, ReferenceModel, Tensors, write_gguf
from tests.support.ggufs.vocabularies import BERT_ROLES, byte_pair

# Four layers are the fewest that show the pattern: global, local, local, global.
WIDTH, INNER, LAYERS, HEADS = 64, 96, 4, 4
CONTEXT_TOKENS = 256
GLOBAL_EVERY = 3
WINDOW = 8
GLOBAL_ROPE_BASE, LOCAL_ROPE_BASE = 160_000.0, 10_000.0
EPSILON = 1e-5


@dataclass(frozen=True)
class ModernBertReference(ReferenceModel):
    """Pre-norm encoder without biases; the head is dense, GELU, norm, linear on the mean (or the first token)."""

    pool_mean: bool = True

    def hidden(self, ids: Ids, token_types: Ids | None = None) -> Float64:
        """See ``ReferenceModel.hidden``; there are no token types."""
        x = self._norm("token_embd_norm", self.weights["token_embd.weight"][np.asarray(ids)])
        for layer in range(LAYERS):
            block = f"blk.{layer}"
            is_global = layer % GLOBAL_EVERY == 0
            base = GLOBAL_ROPE_BASE if is_global else LOCAL_ROPE_BASE
            mask = full_mask(len(x)) if is_global else window_mask(len(x), WINDOW)
            # The first layer's norm is the identity: the embedding has just been normed.
            normed = x if layer == 0 else self._norm(f"{block}.attn_norm", x)
            q, k, v = self.project(f"{block}.attn_qkv", normed).reshape(len(x), 3, HEADS, -1).swapaxes(0, 1)
            attended = attention(rope(q, base), rope(k, base), v, mask, kv_cache=False)
            x = x + self.project(f"{block}.attn_output", attended)
            up = self.project(f"{block}.ffn_up", self._norm(f"{block}.ffn_norm", x))
            x = x + self.project(f"{block}.ffn_down", gelu(up[:, :INNER]) * up[:, INNER:])
        return self._norm("output_norm", x)

    def score(self, ids: Ids, token_types: Ids | None = None) -> Float64:
        """Return the logits, float64 ``[n_labels]``."""
        hidden = self.hidden(ids)
        pooled = hidden.mean(axis=0) if self.pool_mean else hidden[0]
        return self.project("cls.output", self._norm("cls.norm", gelu(self.project("cls", pooled))))

    def _norm(self, name: str, x: Float64) -> Float64:
        return layer_norm(x, self.weights[f"{name}.weight"], None, EPSILON)


def write_modern_bert_reranker(
    path: Path, *, seed: int = 0, labels: Sequence[str] = ("LABEL_0",), pool_mean: bool = True, half: bool = False
) -> ModernBertReference:
    """Write a cross-encoder of 64 dimensions.

    Args:
        pool_mean: whether the head reads the mean of all tokens (llama.cpp's default) or the first token.
    """
    control = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    vocabulary = byte_pair("modern-bert", control, BERT_ROLES, {"bos": True, "eos": True, "sep": True})

    def describe(writer: gguf.GGUFWriter) -> None:
        writer.add_context_length(CONTEXT_TOKENS)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_layer_norm_eps(EPSILON)
        writer.add_rope_freq_base(GLOBAL_ROPE_BASE)
        writer.add_rope_freq_base_swa(LOCAL_ROPE_BASE)
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(list(labels))
        writer.add_sliding_window(WINDOW)
        writer.add_sliding_window_pattern(GLOBAL_EVERY)
        writer.add_vocab_size(len(vocabulary))
        if not pool_mean:
            writer.add_uint32("modern-bert.classifier.pooling_type", int(gguf.PoolingType.CLS))

    tensors = Tensors(seed)
    tensors.table("token_embd", len(vocabulary), WIDTH, 1.0)
    tensors.norm("token_embd_norm", WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        if layer:
            tensors.norm(f"{block}.attn_norm", WIDTH)
        tensors.linear(f"{block}.attn_qkv", 3 * WIDTH, WIDTH)
        tensors.linear(f"{block}.attn_output", WIDTH, WIDTH)
        tensors.norm(f"{block}.ffn_norm", WIDTH)
        tensors.linear(f"{block}.ffn_up", 2 * INNER, WIDTH)
        tensors.linear(f"{block}.ffn_down", WIDTH, INNER, gain=0.5)
    tensors.norm("output_norm", WIDTH)
    tensors.linear("cls", WIDTH, WIDTH)
    tensors.norm("cls.norm", WIDTH)
    tensors.linear("cls.output", len(labels), WIDTH, bias=True)
    weights = write_gguf(path, "modern-bert", tensors, describe, vocabulary.describe, half=half)
    return ModernBertReference(path, weights, tuple(labels), pool_mean)

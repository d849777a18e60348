"""Qwen3 as an embedding model (pooling last) and as a reranker (yes and no as two labels, softmax in the graph)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from tests.support.ggufs.numerics import Float64, attention, causal_mask, rms_norm, rope, silu, softmax
from tests.support.ggufs.reference import Ids, ReferenceModel, Tensors, write_gguf
from tests.support.ggufs.vocabularies import Vocabulary, byte_pair

# As in Qwen3-0.6B, the heads together are twice as wide as the model.
WIDTH, INNER, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD_WIDTH = 64, 96, 2, 4, 2, 32
CONTEXT_TOKENS = 512
ROPE_BASE = 1_000_000.0
EPSILON = 1e-6
RERANK_LABELS = ("yes", "no")
RERANK_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""As llama.cpp's conversion writes it."""


@dataclass(frozen=True)
class Qwen3Reference(ReferenceModel):
    """Pre-norm causal decoder with grouped, normed queries and keys; the head reads the last token."""

    def hidden(self, ids: Ids, token_types: Ids | None = None) -> Float64:
        """See ``ReferenceModel.hidden``; there are no token types."""
        x = self.weights["token_embd.weight"][np.asarray(ids)]
        for layer in range(LAYERS):
            block = f"blk.{layer}"
            normed = self._norm(f"{block}.attn_norm", x)
            q, k, v = (self.project(f"{block}.attn_{part}", normed).reshape(len(x), -1, HEAD_WIDTH) for part in "qkv")
            q = rope(self._norm(f"{block}.attn_q_norm", q), ROPE_BASE)
            k = rope(self._norm(f"{block}.attn_k_norm", k), ROPE_BASE)
            x = x + self.project(f"{block}.attn_output", attention(q, k, v, causal_mask(len(x)), kv_cache=True))
            normed = self._norm(f"{block}.ffn_norm", x)
            inner = silu(self.project(f"{block}.ffn_gate", normed)) * self.project(f"{block}.ffn_up", normed)
            x = x + self.project(f"{block}.ffn_down", inner)
        return self._norm("output_norm", x)

    def score(self, ids: Ids, token_types: Ids | None = None) -> Float64:
        """Return the probabilities of yes and no, float64 ``[2]``."""
        if not self.labels:
            return super().score(ids)
        return softmax(self.project("cls.output", self.hidden(ids)[-1]))

    def _norm(self, name: str, x: Float64) -> Float64:
        return rms_norm(x, self.weights[f"{name}.weight"], EPSILON)


def write_qwen3_embedding(path: Path, *, seed: int = 0, half: bool = False) -> Qwen3Reference:
    """Write an embedding model of 64 dimensions whose vocabulary ends every text with ``<|endoftext|>``."""
    vocabulary = _vocabulary("<|endoftext|>", {"bos": False, "eos": True})

    def describe(writer: gguf.GGUFWriter) -> None:
        writer.add_pooling_type(gguf.PoolingType.LAST)

    return _write(path, vocabulary, describe, (), seed, half)


def write_qwen3_reranker(path: Path, *, seed: int = 0, half: bool = False) -> Qwen3Reference:
    """Write a reranker of 64 dimensions with ``tokenizer.chat_template.rerank``."""
    vocabulary = _vocabulary("<|im_end|>", {"bos": False})

    def describe(writer: gguf.GGUFWriter) -> None:
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(list(RERANK_LABELS))
        writer.add_chat_template([{"name": "rerank", "template": RERANK_TEMPLATE}])

    return _write(path, vocabulary, describe, RERANK_LABELS, seed, half)


def _vocabulary(eos: str, flags: dict[str, bool]) -> Vocabulary:
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    roles = {"bos": "<|endoftext|>", "eos": eos, "pad": "<|endoftext|>"}
    return byte_pair("qwen2", control, roles, flags, user_defined=["<think>", "</think>"])


def _write(
    path: Path,
    vocabulary: Vocabulary,
    describe: Callable[[gguf.GGUFWriter], None],
    labels: tuple[str, ...],
    seed: int,
    half: bool,
) -> Qwen3Reference:
    def describe_body(writer: gguf.GGUFWriter) -> None:
        writer.add_block_count(LAYERS)
        writer.add_context_length(CONTEXT_TOKENS)
        writer.add_embedding_length(WIDTH)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KEY_VALUE_HEADS)
        writer.add_rope_freq_base(ROPE_BASE)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_key_length(HEAD_WIDTH)
        writer.add_value_length(HEAD_WIDTH)

    tensors = Tensors(seed)
    tensors.table("token_embd", len(vocabulary), WIDTH, 0.5)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        tensors.norm(f"{block}.attn_norm", WIDTH)
        tensors.linear(f"{block}.attn_q", HEADS * HEAD_WIDTH, WIDTH)
        tensors.linear(f"{block}.attn_k", KEY_VALUE_HEADS * HEAD_WIDTH, WIDTH)
        tensors.linear(f"{block}.attn_v", KEY_VALUE_HEADS * HEAD_WIDTH, WIDTH)
        tensors.linear(f"{block}.attn_output", WIDTH, HEADS * HEAD_WIDTH, gain=1.5)
        tensors.norm(f"{block}.attn_q_norm", HEAD_WIDTH)
        tensors.norm(f"{block}.attn_k_norm", HEAD_WIDTH)
        tensors.norm(f"{block}.ffn_norm", WIDTH)
        tensors.linear(f"{block}.ffn_gate", INNER, WIDTH)
        tensors.linear(f"{block}.ffn_up", INNER, WIDTH)
        tensors.linear(f"{block}.ffn_down", WIDTH, INNER, gain=0.5)
    tensors.norm("output_norm", WIDTH)
    if labels:
        tensors.linear("cls.output", len(labels), WIDTH)
    weights = write_gguf(path, "qwen3", tensors, describe_body, describe, vocabulary.describe, half=half)
    return Qwen3Reference(path, weights, labels)

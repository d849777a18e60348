"""BERT and XLM-RoBERTa cross-encoders: one graph in llama.cpp (``bert``), two vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from tests.support.ggufs.numerics import Float64, attention, full_mask, gelu, layer_norm
from tests.support.ggufs.reference import Ids, ReferenceModel, Tensors, write_gguf
from tests.support.ggufs.vocabularies import Vocabulary, unigram, word_piece

LAYERS, HEADS = 2, 4
CONTEXT_TOKENS = 128


@dataclass(frozen=True)
class BertReference(ReferenceModel):
    """Post-norm encoder with learned positions and token types; the head is dense, tanh, linear on the first token."""

    epsilon: float = 1e-12

    def hidden(self, ids: Ids, token_types: Ids | None = None) -> Float64:
        """See ``ReferenceModel.hidden``. llama.cpp's own graph knows token type 0 only."""
        types = np.zeros(len(ids), dtype=np.int64) if token_types is None else np.asarray(token_types)
        x = self.weights["token_embd.weight"][np.asarray(ids)] + self.weights["position_embd.weight"][: len(ids)]
        x = self._norm("token_embd_norm", x + self.weights["token_types.weight"][types])
        for layer in range(LAYERS):
            block = f"blk.{layer}"
            q, k, v = (self.project(f"{block}.attn_{part}", x).reshape(len(x), HEADS, -1) for part in "qkv")
            attended = self.project(f"{block}.attn_output", attention(q, k, v, full_mask(len(x)), kv_cache=False))
            x = self._norm(f"{block}.attn_output_norm", x + attended)
            inner = gelu(self.project(f"{block}.ffn_up", x))
            x = self._norm(f"{block}.layer_output_norm", x + self.project(f"{block}.ffn_down", inner))
        return x

    def score(self, ids: Ids, token_types: Ids | None = None) -> Float64:
        """Return the logits, float64 ``[n_labels]``."""
        pooled = np.tanh(self.project("cls", self.hidden(ids, token_types)[0]))
        return self.project("cls.output", pooled)

    def _norm(self, name: str, x: Float64) -> Float64:
        return layer_norm(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], self.epsilon)


def write_bert_reranker(
    path: Path, *, seed: int = 0, labels: Sequence[str] = ("LABEL_0",), half: bool = False
) -> BertReference:
    """Write a WordPiece cross-encoder of 32 dimensions with two token types and its pooler kept as tensor ``cls``."""
    return _write(path, word_piece(), width=32, token_types=2, epsilon=1e-12, seed=seed, labels=labels, half=half)


def write_xlm_roberta_reranker(
    path: Path, *, seed: int = 0, labels: Sequence[str] = ("LABEL_0",), half: bool = False
) -> BertReference:
    """Write a Unigram cross-encoder of 48 dimensions with one token type, as bge-reranker-v2-m3 converts."""
    return _write(path, unigram(), width=48, token_types=1, epsilon=1e-5, seed=seed, labels=labels, half=half)


def _write(
    path: Path,
    vocabulary: Vocabulary,
    *,
    width: int,
    token_types: int,
    epsilon: float,
    seed: int,
    labels: Sequence[str],
    half: bool,
) -> BertReference:
    inner = 2 * width

    def describe(writer: gguf.GGUFWriter) -> None:
        writer.add_context_length(CONTEXT_TOKENS)
        writer.add_embedding_length(width)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(inner)
        writer.add_head_count(HEADS)
        writer.add_layer_norm_eps(epsilon)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(list(labels))
        writer.add_token_type_count(token_types)
        if vocabulary.model == "t5":
            writer.add_add_space_prefix(True)
            writer.add_remove_extra_whitespaces(True)

    tensors = Tensors(seed)
    tensors.table("token_embd", len(vocabulary), width, 1.0)
    tensors.table("position_embd", CONTEXT_TOKENS, width, 0.7)
    tensors.table("token_types", token_types, width, 0.5)
    tensors.norm("token_embd_norm", width, bias=True)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part in "qk":
            tensors.linear(f"{block}.attn_{part}", width, width, gain=1.2, bias=True)
        tensors.linear(f"{block}.attn_v", width, width, bias=True)
        tensors.linear(f"{block}.attn_output", width, width, gain=1.5, bias=True)
        tensors.norm(f"{block}.attn_output_norm", width, bias=True)
        tensors.linear(f"{block}.ffn_up", inner, width, bias=True)
        tensors.linear(f"{block}.ffn_down", width, inner, gain=0.5, bias=True)
        tensors.norm(f"{block}.layer_output_norm", width, bias=True)
    tensors.linear("cls", width, width, bias=True)
    tensors.linear("cls.output", len(labels), width, gain=2.0, bias=True)
    weights = write_gguf(path, "bert", tensors, describe, vocabulary.describe, half=half)
    return BertReference(path, weights, tuple(labels), epsilon)

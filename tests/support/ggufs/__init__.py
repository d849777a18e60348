"""Small GGUF models with seeded random weights, each beside a NumPy forward pass that says what llama.cpp must answer.

A file takes a few milliseconds to write and holds 2 to 4 layers of 32 to 64 dimensions and a few hundred tokens. Keys,
tensor names, special tokens and flags are those of llama.cpp's own conversions of the model that each stands for.
"""

from __future__ import annotations

from tests.support.ggufs.bert import BertReference, write_bert_reranker, write_xlm_roberta_reranker
from tests.support.ggufs.gemma import GemmaEmbeddingReference, write_gemma_embedding
from tests.support.ggufs.modern_bert import ModernBertReference, write_modern_bert_reranker
from tests.support.ggufs.qwen3 import Qwen3Reference, write_qwen3_embedding, write_qwen3_reranker
from tests.support.ggufs.reference import ReferenceModel

__all__ = [
    "BertReference",
    "GemmaEmbeddingReference",
    "ModernBertReference",
    "Qwen3Reference",
    "ReferenceModel",
    "write_bert_reranker",
    "write_gemma_embedding",
    "write_modern_bert_reranker",
    "write_qwen3_embedding",
    "write_qwen3_reranker",
    "write_xlm_roberta_reranker",
]

"""Poolhouse: embeddings and reranking from GGUF models, routed by pooling type."""

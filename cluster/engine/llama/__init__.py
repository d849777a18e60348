"""llama.cpp through the C API of ``llama_cpp``; nothing outside this folder imports that module."""

from cluster.engine.llama.engine import LlamaEngine
from cluster.engine.llama.vocabulary import LlamaVocabulary

__all__ = ["LlamaEngine", "LlamaVocabulary"]

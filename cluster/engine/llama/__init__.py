"""llama.cpp through the C API of ``llama_cpp``; nothing outside this folder imports that module."""

from cluster.engine.llama.engine import LlamaEngine
from cluster.engine.llama.headless import headless_body
from cluster.engine.llama.library import available_gpu_layers
from cluster.engine.llama.vocabulary import LlamaVocabulary

__all__ = ["LlamaEngine", "LlamaVocabulary", "available_gpu_layers", "headless_body"]

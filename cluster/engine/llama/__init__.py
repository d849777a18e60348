"""llama.cpp through the C API of ``llama_cpp``; nothing outside this folder imports that module."""

import os

# Read by libgomp when llama.cpp is loaded: how long a thread looks for work before it sleeps. Its default of 3 ms after each
# call takes a core from the threads that carry requests; 0.2 ms is longer than any barrier within a call.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from cluster.engine.llama.engine import LlamaEngine
from cluster.engine.llama.headless import headless_body
from cluster.engine.llama.library import available_gpu_layers
from cluster.engine.llama.vocabulary import LlamaVocabulary

__all__ = ["LlamaEngine", "LlamaVocabulary", "available_gpu_layers", "headless_body"]

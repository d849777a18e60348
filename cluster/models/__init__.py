"""Models: where a GGUF comes from, what it is, and what its vectors depend on."""

from cluster.models.inspect import ModelReport, inspect_gguf
from cluster.models.sources import resolve, source_of

__all__ = ["ModelReport", "inspect_gguf", "resolve", "source_of"]

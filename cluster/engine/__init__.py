"""Engines: what turns packed token ids into numbers. See ``cluster.engine.protocol``."""

from __future__ import annotations

from pathlib import Path

from cluster.config import EncoderConfig
from cluster.engine.fake import FakeEngine, FakeVocabulary
from cluster.engine.protocol import Engine, Vocabulary
from cluster.types import ModelFacts

__all__ = ["Engine", "Vocabulary", "load_engine", "load_vocabulary"]


def load_engine(encoder: EncoderConfig, path: Path | None, facts: ModelFacts, *, threads: int = 1) -> Engine:
    """Load the engine of an encoder; ``path`` is None for the fake one.

    Raises:
        ModelLoadError: the file does not load.
    """
    if path is None:
        return FakeEngine(
            facts,
            max_micro_batch_tokens=encoder.micro_batch_tokens,
            context_tokens=encoder.context_tokens,
            seconds_per_token=encoder.fake_seconds_per_token,
        )
    # Imported late: processes that only need the fake engine do not pay for the native library.
    from cluster.engine.llama import LlamaEngine

    context_tokens = min(facts.context_tokens, encoder.context_tokens or facts.context_tokens)
    return LlamaEngine(
        path,
        facts,
        micro_batch_tokens=encoder.micro_batch_tokens,
        context_tokens=context_tokens,
        threads=encoder.threads or threads,
        gpu_layers=encoder.gpu_layers,
        flash_attention=encoder.flash_attention,
    )


def load_vocabulary(path: Path | None) -> Vocabulary:
    """Load a model's vocabulary; None is the fake one.

    Raises:
        ModelLoadError: the file does not load.
    """
    if path is None:
        return FakeVocabulary()
    from cluster.engine.llama import LlamaVocabulary

    return LlamaVocabulary(path)

"""Engines: what turns packed token ids into numbers. See ``cluster.engine.protocol``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cluster.config import EncoderConfig
from cluster.engine.fake import FakeEngine, FakeVocabulary
from cluster.engine.protocol import Engine, Vocabulary
from cluster.types import ModelFacts, PoolingType

__all__ = ["Engine", "Vocabulary", "load_engine", "load_vocabulary"]


def load_engine(
    encoder: EncoderConfig,
    path: Path | None,
    facts: ModelFacts,
    pooling_types: Collection[PoolingType] = (PoolingType.NONE,),
    *,
    threads: int = 1,
) -> Engine:
    """Load the engine of an encoder; ``path`` is None for the fake one.

    Args:
        pooling_types: those that it is to answer; rank needs a context of its own.
        threads: CPU threads in all, where the encoder's configuration does not say.

    Raises:
        ModelLoadError: the file does not load.
    """
    if path is None:
        return FakeEngine(
            facts,
            max_micro_batch_tokens=encoder.most_micro_batch_tokens,
            context_tokens=encoder.context_tokens,
            seconds_per_token=encoder.fake_seconds_per_token,
            slots=encoder.slots or 1,
        )
    # Imported late: processes that only need the fake engine do not pay for the native library.
    from cluster.engine.llama import LlamaEngine, available_gpu_layers

    context_tokens = min(facts.context_tokens, encoder.context_tokens or facts.context_tokens)
    threads = encoder.threads or threads
    gpu_layers = available_gpu_layers(encoder.gpu_layers)
    return LlamaEngine(
        path,
        facts,
        micro_batch_tokens=encoder.most_micro_batch_tokens,
        context_tokens=context_tokens,
        threads=threads,
        # Threads of their own share no barrier: two slots of one thread encode more than one slot of two.
        slots=encoder.slots or (1 if gpu_layers else threads),
        gpu_layers=encoder.gpu_layers,
        flash_attention=encoder.flash_attention,
        hidden=any(pooling is not PoolingType.RANK for pooling in pooling_types),
        rank=PoolingType.RANK in pooling_types,
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

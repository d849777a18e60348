"""Engines: what turns packed token ids into numbers. See ``cluster.engine.protocol``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cluster.config import EncoderConfig, TokenTypes
from cluster.engine.fake import FakeEngine, FakeVocabulary
from cluster.engine.protocol import Engine, Vocabulary
from cluster.errors import ModelLoadError
from cluster.models.token_table import read_token_types
from cluster.types import Float32, ModelFacts, PoolingType

__all__ = ["Engine", "Vocabulary", "load_engine", "load_vocabulary"]


def load_engine(
    encoder: EncoderConfig,
    path: Path | None,
    facts: ModelFacts,
    pooling_types: Collection[PoolingType] = (PoolingType.NONE,),
    *,
    threads: int = 1,
    token_types: TokenTypes | None = None,
) -> Engine:
    """Load the engine of an encoder; ``path`` is None for the fake one.

    Args:
        pooling_types: those that it is to answer; rank needs a context of its own.
        threads: CPU threads in all, where the encoder's configuration does not say.
        token_types: of a pair's second text; None follows the GGUF.

    Raises:
        ModelLoadError: the file does not load, or its pairs cannot get the token types that they are to have.
    """
    if path is None:
        return FakeEngine(
            facts,
            max_micro_batch_tokens=encoder.most_micro_batch_tokens,
            context_tokens=encoder.context_tokens,
            seconds_per_token=encoder.fake_seconds_per_token,
            slots=encoder.slots_of(threads, on_gpu=False),
            poison_id=encoder.fake_poison_id,
            faults=encoder.fake_faults,
        )
    # Imported late: processes that only need the fake engine do not pay for the native library.
    from cluster.engine.llama import LlamaEngine, available_gpu_layers, headless_body

    context_tokens = min(facts.context_tokens, encoder.context_tokens or facts.context_tokens)
    threads = encoder.threads or threads
    gpu_layers = available_gpu_layers(encoder.gpu_layers)
    headless = headless_body(path) if encoder.headless == "auto" else None
    rank = PoolingType.RANK in pooling_types
    segments = rank and (token_types is TokenTypes.SEGMENTS or (token_types is None and facts.segment_types))
    return LlamaEngine(
        headless[0] if headless else path,
        facts,
        micro_batch_tokens=encoder.most_micro_batch_tokens,
        context_tokens=context_tokens,
        threads=threads,
        slots=encoder.slots_of(threads, on_gpu=bool(gpu_layers)),
        gpu_layers=encoder.gpu_layers,
        flash_attention=encoder.flash_attention,
        hidden=any(pooling is not PoolingType.RANK for pooling in pooling_types),
        rank=rank,
        table=headless[1] if headless else None,
        segment_types=_segment_types(path, fed=headless is not None) if segments else None,
    )


def _segment_types(path: Path, *, fed: bool) -> Float32:
    """Return the embeddings of a model's token types, float32 ``[n_types, width]``."""
    types = read_token_types(path)
    if types is None or len(types) < 2:
        raise ModelLoadError(
            f"token_types is segments and {path.name} has {0 if types is None else len(types)} token type(s) where two "
            "are needed; set models.….token_types: zero"
        )
    if not fed:
        raise ModelLoadError(
            f"the pairs of {path.name} need token types, which llama.cpp's graph lacks and only a headless encoder can add; "
            "set encoders.….headless: auto, or models.….token_types: zero to score without them"
        )
    return types


def load_vocabulary(path: Path | None) -> Vocabulary:
    """Load a model's vocabulary; None is the fake one.

    Raises:
        ModelLoadError: the file does not load.
    """
    if path is None:
        return FakeVocabulary()
    from cluster.engine.llama import LlamaVocabulary

    return LlamaVocabulary(path)

"""All stages in this process: the ``fused`` wiring, which the ingress, the command and the tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TypeVar

from cluster.assembly import describe, load_encoder, load_tokenizer
from cluster.batching.encoder import Encoder
from cluster.config import PoolhouseConfig
from cluster.errors import EngineError
from cluster.pooler import InteractionBatch, PieceBatch, Pooler, PoolerBatch
from cluster.showing import ShowingThreads
from cluster.stages import ModelDescription, Senders
from cluster.tokenization import TextBatch, Tokenizer
from cluster.types import Float32, TokenBatch, VectorBatch

Batch = TypeVar("Batch")
Result = TypeVar("Result")

# Below this many characters or values a change of threads costs more than the work that it takes off the event loop.
INLINE_CHARACTERS = 8_192
_INLINE_VALUES = 8_192


class FusedStages:
    """One of each stage, and an encoder for each entry of the configuration."""

    def __init__(self, config: PoolhouseConfig, tokenizer: Tokenizer, encoders: dict[str, Encoder]) -> None:
        self.encoders = encoders
        self._config = config
        self._tokenizer = tokenizer
        self._showing = ShowingThreads(tokenizer)
        self._pooler = Pooler()

    @classmethod
    def load(cls, config: PoolhouseConfig) -> FusedStages:
        """Load everything; what was loaded before a failure is closed again.

        Raises:
            ConfigError: an encoder is to answer a pooling type that its model cannot.
            ModelLoadError: a model cannot be had or does not load.
        """
        tokenizer = load_tokenizer(config)
        encoders: dict[str, Encoder] = {}
        with ExitStack() as loaded:
            for name in config.encoders:
                encoders[name] = load_encoder(config, name)
                loaded.callback(encoders[name].close)
            loaded.pop_all()
        return cls(config, tokenizer, encoders)

    @property
    def descriptions(self) -> dict[str, ModelDescription]:
        """What the ingress needs to know of each model."""
        return describe(self._tokenizer)

    @property
    def senders(self) -> Senders:
        """The way to each stage: a function call, on a thread where it takes long."""
        return Senders(
            tokenize=self._tokenize,
            encode=self._encode,
            finish=self._finish,
            score=partial(score_here, self._pooler),
            outstanding=lambda name: self._config.batching.outstanding,
            tokens=self._showing.tokens,
            text=self._showing.text,
            running=lambda name: 1,
        )

    def check_health(self) -> None:
        """Raise an EngineError that names the encoders that cannot encode any more; the process must be replaced."""
        faults = []
        for name, encoder in self.encoders.items():
            try:
                encoder.check_health()
            except EngineError as error:
                faults.append(f"{name}: {error.message}")
        if faults:
            raise EngineError("; ".join(faults))

    async def check_ready(self) -> None:
        """Ready is who is healthy: all has been loaded."""
        self.check_health()

    def close(self) -> None:
        """Stop the encoders. Vocabularies stay: a thread may still be tokenizing with one."""
        self._showing.close()
        with ExitStack() as closing:
            for encoder in self.encoders.values():
                closing.callback(encoder.close)

    def close_vocabularies(self) -> None:
        """Free the vocabularies; nobody may tokenize any more."""
        for model in self._tokenizer.models.values():
            model.vocabulary.close()

    async def _tokenize(self, batch: TextBatch) -> TokenBatch:
        return await _work(self._tokenizer.tokenize, batch, inline=batch.weight <= INLINE_CHARACTERS)

    async def _encode(self, name: str, batch: TokenBatch) -> VectorBatch:
        return await asyncio.wrap_future(self.encoders[name].submit(batch))

    async def _finish(self, batch: PoolerBatch) -> PieceBatch:
        return await _work(self._pooler.finish, batch, inline=batch.is_brief)


@contextmanager
def fused_stages(config: PoolhouseConfig) -> Iterator[FusedStages]:
    """Load all stages, and free everything at the end; raises as ``FusedStages.load``."""
    stages = FusedStages.load(config)
    try:
        yield stages
    finally:
        stages.close()
        stages.close_vocabularies()


async def score_here(pooler: Pooler, batch: InteractionBatch) -> Float32:
    """Score in this process, on a thread where it takes long."""
    return await _work(pooler.score, batch, inline=len(batch.documents.values) <= _INLINE_VALUES)


async def _work(stage: Callable[[Batch], Result], batch: Batch, *, inline: bool) -> Result:
    return stage(batch) if inline else await asyncio.to_thread(stage, batch)

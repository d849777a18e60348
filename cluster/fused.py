"""All stages in this process: the ``fused`` wiring, which the ingress, the command and the tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cluster.assembly import describe, load_encoder, load_tokenizer
from cluster.batching.encoder import Encoder
from cluster.config import PoolhouseConfig
from cluster.errors import EngineError
from cluster.offload import Offload
from cluster.pooler import InteractionBatch, PieceBatch, Pooler, PoolerBatch
from cluster.showing import ShowingThreads
from cluster.stages import ModelDescription, Senders
from cluster.texts import TextBatch
from cluster.tokenization import Tokenizer
from cluster.types import Float32, TokenBatch, VectorBatch


class FusedStages:
    """One of each stage, and an encoder for each entry of the configuration."""

    def __init__(self, config: PoolhouseConfig, tokenizer: Tokenizer, encoders: dict[str, Encoder]) -> None:
        self.encoders = encoders
        self._config = config
        self._tokenizer = tokenizer
        self._showing = ShowingThreads(tokenizer)
        self._pooler = Pooler()
        self._offload = Offload()

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
            score=self._score,
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
        self._offload.close()
        with ExitStack() as closing:
            for encoder in self.encoders.values():
                closing.callback(encoder.close)

    def close_vocabularies(self) -> None:
        """Free the vocabularies; nobody may tokenize any more."""
        for model in self._tokenizer.models.values():
            model.vocabulary.close()

    async def _tokenize(self, batch: TextBatch) -> TokenBatch:
        return await self._offload.run(batch.cost_s, self._tokenizer.tokenize, batch)

    async def _encode(self, name: str, batch: TokenBatch) -> VectorBatch:
        return await asyncio.wrap_future(self.encoders[name].submit(batch))

    async def _finish(self, batch: PoolerBatch) -> PieceBatch:
        return await self._offload.run(batch.cost_s, self._pooler.finish, batch)

    async def _score(self, batch: InteractionBatch) -> Float32:
        return await self._offload.run(batch.cost_s, self._pooler.score, batch)


@contextmanager
def fused_stages(config: PoolhouseConfig) -> Iterator[FusedStages]:
    """Load all stages, and free everything at the end; raises as ``FusedStages.load``."""
    stages = FusedStages.load(config)
    try:
        yield stages
    finally:
        stages.close()
        stages.close_vocabularies()

"""All stages in this process: the ``fused`` wiring, which the ingress, the command and the tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cluster.assembly import describe, load_encoder, load_tokenizer
from cluster.batching.encoder import Encoder
from cluster.calls import Input
from cluster.config import PoolhouseConfig
from cluster.offload import Offload
from cluster.pooler import InteractionBatch, PieceBatch, Pooler, PoolerBatch
from cluster.stages import ModelDescription, Senders
from cluster.tokenization import TextBatch, Tokenizer, tokenizing_s
from cluster.types import Float32, TokenBatch, VectorBatch


class FusedStages:
    """One of each stage, and an encoder for each entry of the configuration."""

    def __init__(self, config: PoolhouseConfig, tokenizer: Tokenizer, encoders: dict[str, Encoder]) -> None:
        self.encoders = encoders
        self._config = config
        self._tokenizer = tokenizer
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
            tokens=self._tokens,
            text=self._text,
            running=lambda name: 1,
        )

    async def check_ready(self) -> None:
        """Raise the error of the first encoder that cannot answer."""
        for encoder in self.encoders.values():
            encoder.check_health()

    def close(self) -> None:
        """Stop the encoders. Vocabularies stay: a thread may still be tokenizing with one."""
        self._offload.close()
        for encoder in self.encoders.values():
            encoder.close()

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

    async def _tokens(
        self, model: str, content: Input, add_special: bool, parse_special: bool
    ) -> list[tuple[int, bytes]]:
        return await self._offload.run(
            tokenizing_s(1, len(content)), self._tokenizer.tokens, model, content, add_special, parse_special
        )

    async def _text(self, model: str, ids: list[int]) -> str:
        return await self._offload.run(tokenizing_s(1, len(ids)), self._tokenizer.text, model, ids)


@contextmanager
def fused_stages(config: PoolhouseConfig) -> Iterator[FusedStages]:
    """Load all stages, and free everything at the end; raises as ``FusedStages.load``."""
    stages = FusedStages.load(config)
    try:
        yield stages
    finally:
        stages.close()
        stages.close_vocabularies()

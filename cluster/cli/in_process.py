"""A client whose server lives in this process: the whole application over a local model, without Ray and without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from cluster.api.application import create_application
from cluster.assembly import describe, load_encoder, load_tokenizer
from cluster.calls import Input
from cluster.client import Client, Retries
from cluster.config import PoolhouseConfig
from cluster.pipeline import Pipeline
from cluster.pooler import InteractionBatch, PieceBatch, Pooler, PoolerBatch
from cluster.stages import Senders
from cluster.tokenization import TextBatch
from cluster.types import Float32, TokenBatch, VectorBatch


@contextmanager
def in_process_client(config: PoolhouseConfig) -> Iterator[Client]:
    """Load a configuration's models and yield a client that is answered by them.

    Raises:
        ModelLoadError: a model cannot be had or does not load.
    """
    tokenizer = load_tokenizer(config)
    encoders = {name: load_encoder(config, name) for name in config.encoders}
    pooler = Pooler()

    async def tokenize(batch: TextBatch) -> TokenBatch:
        return await asyncio.to_thread(tokenizer.tokenize, batch)

    async def encode(name: str, batch: TokenBatch) -> VectorBatch:
        return await asyncio.wrap_future(encoders[name].submit(batch))

    async def finish(batch: PoolerBatch) -> PieceBatch:
        return await asyncio.to_thread(pooler.finish, batch)

    async def score(batch: InteractionBatch) -> Float32:
        return await asyncio.to_thread(pooler.score, batch)

    async def tokens(model: str, content: Input, add_special: bool, parse_special: bool) -> list[tuple[int, bytes]]:
        return tokenizer.tokens(model, content, add_special, parse_special)

    async def text(model: str, ids: list[int]) -> str:
        return tokenizer.text(model, ids)

    async def check_ready() -> None:
        for encoder in encoders.values():
            encoder.check_health()

    senders = Senders(
        tokenize=tokenize,
        encode=encode,
        finish=finish,
        score=score,
        outstanding=lambda name: config.batching.outstanding,
        running=lambda name: 1,
        tokens=tokens,
        text=text,
    )
    application = create_application(Pipeline(config, describe(tokenizer), senders), check_ready)
    try:
        # Nothing between the two can be lost, so nothing is sent twice.
        with Client(
            "http://in-process", retries=Retries(count=0), transport=httpx.ASGITransport(app=application)
        ) as client:
            yield client
    finally:
        for encoder in encoders.values():
            encoder.close()
        for model in tokenizer.models.values():
            model.vocabulary.close()

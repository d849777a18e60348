"""The two wirings: how the ingress reaches the stages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from cluster.assembly import describe, load_encoder, load_tokenizer
from cluster.config import PoolhouseConfig
from cluster.errors import NotReady
from cluster.pooler import PieceBatch, Pooler, PoolerBatch
from cluster.stages import ModelDescription, Senders
from cluster.tokenization import TextBatch
from cluster.types import TokenBatch, VectorBatch
from deployments.replicas import ReplicaWatch

# Below this many characters or values a thread hop costs more than the work that it takes off the event loop.
_INLINE_CHARACTERS = 8_192
_INLINE_VALUES = 16_384


@dataclass(slots=True)
class Wiring:
    """What a wiring gives the ingress."""

    descriptions: dict[str, ModelDescription]
    senders: Senders
    check_ready: Callable[[], Awaitable[None]]
    close: Callable[[], None]


async def fused(config: PoolhouseConfig) -> Wiring:
    """Load all stages into this process."""
    tokenizer = await asyncio.to_thread(load_tokenizer, config)
    encoders = {name: await asyncio.to_thread(load_encoder, config, name) for name in config.encoders}
    pooler = Pooler()

    async def tokenize(batch: TextBatch) -> TokenBatch:
        if batch.weight <= _INLINE_CHARACTERS:
            return tokenizer.tokenize(batch)
        return await asyncio.to_thread(tokenizer.tokenize, batch)

    async def encode(name: str, batch: TokenBatch) -> VectorBatch:
        return await asyncio.wrap_future(encoders[name].submit(batch))

    async def finish(batch: PoolerBatch) -> PieceBatch:
        if len(batch.vectors.values) <= _INLINE_VALUES:
            return pooler.finish(batch)
        return await asyncio.to_thread(pooler.finish, batch)

    async def tokens(model: str, content: Any, add_special: bool, parse_special: bool) -> list[tuple[int, bytes]]:
        return await asyncio.to_thread(tokenizer.tokens, model, content, add_special, parse_special)

    async def text(model: str, ids: list[int]) -> str:
        return await asyncio.to_thread(tokenizer.text, model, ids)

    async def check_ready() -> None:
        for encoder in encoders.values():
            encoder.check_health()

    def close() -> None:
        for encoder in encoders.values():
            encoder.close()

    senders = Senders(
        tokenize=tokenize,
        encode=encode,
        finish=finish,
        outstanding=lambda name: config.batching.outstanding,
        tokens=tokens,
        text=text,
    )
    return Wiring(describe(tokenizer), senders, check_ready, close)


async def split(
    config: PoolhouseConfig,
    tokenizer: DeploymentHandle,
    encoders: dict[str, DeploymentHandle],
    pooler: DeploymentHandle,
) -> Wiring:
    """Reach the stages through Serve."""
    watch = ReplicaWatch()
    await watch.start()

    async def tokenize(batch: TextBatch) -> TokenBatch:
        result: TokenBatch = await tokenizer.tokenize.remote(batch)
        return result

    async def encode(name: str, batch: TokenBatch) -> VectorBatch:
        result: VectorBatch = await encoders[name].encode.remote(batch)
        return result

    async def finish(batch: PoolerBatch) -> PieceBatch:
        result: PieceBatch = await pooler.finish.remote(batch)
        return result

    async def tokens(model: str, content: Any, add_special: bool, parse_special: bool) -> list[tuple[int, bytes]]:
        result: list[tuple[int, bytes]] = await tokenizer.tokens.remote(model, content, add_special, parse_special)
        return result

    async def text(model: str, ids: list[int]) -> str:
        result: str = await tokenizer.text.remote(model, ids)
        return result

    async def check_ready() -> None:
        waiting = await watch.not_running()
        if waiting:
            raise NotReady(f"not running yet: {', '.join(waiting)}; try again", retry_after_s=1)

    descriptions: dict[str, ModelDescription] = await tokenizer.describe.remote()
    senders = Senders(
        tokenize=tokenize,
        encode=encode,
        finish=finish,
        outstanding=lambda name: config.batching.outstanding * watch.running(f"Encoder-{name}"),
        tokens=tokens,
        text=text,
    )
    return Wiring(descriptions, senders, check_ready, watch.stop)

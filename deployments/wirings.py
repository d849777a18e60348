"""The two wirings: how the ingress reaches the stages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.serve.handle import DeploymentHandle

from cluster.config import PoolhouseConfig
from cluster.errors import NotReady
from cluster.fused import INLINE_VALUES, FusedStages
from cluster.pooler import InteractionBatch, PieceBatch, Pooler, PoolerBatch
from cluster.stages import ModelDescription, Senders
from cluster.tokenization import TextBatch
from cluster.types import Float32, TokenBatch, VectorBatch
from deployments.replicas import ReplicaWatch
from deployments.retries import Carrier, call_again

_DESCRIBE_AGAIN_S = 0.5


@dataclass(slots=True)
class Wiring:
    """What a wiring gives the ingress."""

    descriptions: dict[str, ModelDescription]
    senders: Senders
    check_ready: Callable[[], Awaitable[None]]
    close: Callable[[], None]


async def fused(config: PoolhouseConfig) -> Wiring:
    """Load all stages into this process."""
    stages = await asyncio.to_thread(FusedStages.load, config)
    return Wiring(stages.descriptions, stages.senders, stages.check_ready, stages.close)


async def split(
    config: PoolhouseConfig,
    version: str,
    tokenizer: DeploymentHandle,
    encoders: dict[str, DeploymentHandle],
    pooler: DeploymentHandle,
) -> Wiring:
    """Reach the stages of this version of the application through Serve."""
    watch = ReplicaWatch()
    await watch.start()

    def limit_s(batch: TextBatch | TokenBatch) -> float | None:
        left = [request.remaining_s for request in batch.requests]
        return max((seconds for seconds in left if seconds is not None), default=None) if None not in left else None

    # Messages are plain dataclasses over NumPy arrays: pickle takes them at a fraction of cloudpickle's cost.
    tokenizer, pooler, *faster = (
        handle.options(request_serialization="pickle", response_serialization="pickle")
        for handle in (tokenizer, pooler, *encoders.values())
    )
    encoders = dict(zip(encoders, faster, strict=True))
    own_pooler = Pooler()
    to_tokenizer = Carrier[TextBatch, TokenBatch](tokenizer, "tokenize", limit_s)
    to_pooler = Carrier[PoolerBatch, PieceBatch](pooler, "finish", lambda batch: config.limits.timeout_s)
    to_scorer = Carrier[InteractionBatch, Float32](pooler, "score", lambda batch: config.limits.timeout_s)
    to_encoders = {
        name: Carrier[TokenBatch, VectorBatch](
            handle, "encode", limit_s, isolate=partial(call_again, handle, "isolate")
        )
        for name, handle in encoders.items()
    }

    async def encode(name: str, batch: TokenBatch) -> VectorBatch:
        return await to_encoders[name].send(batch)

    async def finish(batch: PoolerBatch) -> PieceBatch:
        # A hop costs more CPU than finishing a few vectors; the Pooler takes what would hold up the event loop.
        if len(batch.vectors.values) <= INLINE_VALUES:
            return own_pooler.finish(batch)
        return await to_pooler.send(batch)

    async def tokens(model: str, content: Any, add_special: bool, parse_special: bool) -> list[tuple[int, bytes]]:
        pairs: list[tuple[int, bytes]] = await call_again(
            tokenizer, "tokens", model, content, add_special, parse_special
        )
        return pairs

    async def text(model: str, ids: list[int]) -> str:
        return str(await call_again(tokenizer, "text", model, ids))

    async def check_ready() -> None:
        waiting = await watch.not_running()
        if waiting:
            raise NotReady(f"not running yet: {', '.join(waiting)}; try again", retry_after_s=1)

    senders = Senders(
        tokenize=to_tokenizer.send,
        encode=encode,
        finish=finish,
        score=to_scorer.send,
        outstanding=lambda name: config.batching.outstanding * watch.running(f"Encoder-{name}"),
        tokens=tokens,
        text=text,
        running=lambda name: watch.can_take_work(f"Encoder-{name}"),
    )
    return Wiring(await _describe(version, tokenizer), senders, check_ready, watch.stop)


async def _describe(version: str, tokenizer: DeploymentHandle) -> dict[str, ModelDescription]:
    """Ask a tokenizer of this version; while it replaces another one, one of the old version may answer."""
    while True:
        descriptions: dict[str, ModelDescription] | None = await call_again(tokenizer, "describe", version)
        if descriptions is not None:
            return descriptions
        await asyncio.sleep(_DESCRIBE_AGAIN_S)

"""The two wirings: how the ingress reaches the stages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.serve.handle import DeploymentHandle

from cluster.assembly import rebuild_tokenizer
from cluster.batching.parts import Parts
from cluster.calls import Input
from cluster.config import PoolhouseConfig
from cluster.errors import NotReady, VersionChanged
from cluster.fused import FusedStages
from cluster.message_sizes import pooler_parts, scorer_parts, text_parts, token_parts
from cluster.offload import INLINE_S, Offload
from cluster.pooler import InteractionBatch, PieceBatch, Pooler, PoolerBatch
from cluster.quarantine import ISOLATIONS, ISOLATIONS_WITHIN_S, Bound, Quarantine
from cluster.stages import ModelDescription, Senders
from cluster.texts import TextBatch
from cluster.tokenization import ShownTokens, Tokenizer
from cluster.types import Float32, Int32, TokenBatch, VectorBatch
from deployments.replicas import ReplicaWatch
from deployments.retries import Carrier, Method, call_again
from deployments.transport import usable_message_bytes

_DESCRIBE_AGAIN_S = 0.5

# Longer than an update takes to replace the ingress as well.
_OTHER_VERSION_S = 60.0


@dataclass(slots=True)
class Wiring:
    """What a wiring gives the ingress.

    ``check_health`` raises where this process must be replaced, ``check_ready`` where it cannot answer yet or any more.
    """

    descriptions: dict[str, ModelDescription]
    senders: Senders
    check_ready: Callable[[], Awaitable[None]]
    check_health: Callable[[], None]
    close: Callable[[], None]


async def fused(config: PoolhouseConfig) -> Wiring:
    """Load all stages into this process."""
    stages = await asyncio.to_thread(FusedStages.load, config)
    return Wiring(stages.descriptions, stages.senders, stages.check_ready, stages.check_health, stages.close)


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
    offload = Offload()
    descriptions = await _of_version(version, tokenizer, "describe")
    cap_bytes = usable_message_bytes()
    quarantine = Quarantine()
    isolations = Bound(ISOLATIONS, ISOLATIONS_WITHIN_S)

    def oversized(parts: Callable[[int], Parts[Any, Any]]) -> Callable[[Any], bool]:
        if cap_bytes is None:
            return lambda batch: False
        bound = parts(cap_bytes)
        return lambda batch: bound.size_bytes(batch) > cap_bytes

    most_tokens = max(description.max_tokens for description in descriptions.values())
    to_tokenizer = Carrier[TextBatch, TokenBatch](
        tokenizer, "tokenize", limit_s, oversized(lambda cap: text_parts(cap, most_tokens))
    )
    to_pooler = Carrier[PoolerBatch, PieceBatch](
        pooler, "finish", lambda batch: config.limits.timeout_s, oversized(pooler_parts)
    )
    to_scorer = Carrier[InteractionBatch, Float32](
        pooler, "score", lambda batch: config.limits.timeout_s, oversized(scorer_parts)
    )
    to_encoders = {
        name: Carrier[TokenBatch, VectorBatch](
            handle,
            "encode",
            limit_s,
            oversized(partial(token_parts, facts=descriptions[config.encoders[name].model].facts)),
            isolate=Method[VectorBatch](handle, "isolate"),
            isolations=isolations,
            learn=quarantine.learn,
        )
        for name, handle in encoders.items()
    }
    short_texts = _ShortTexts(config.batching.ingress_characters)
    if config.batching.ingress_characters:
        files = await _of_version(version, tokenizer, "vocabularies")
        short_texts.tokenizer = await asyncio.to_thread(rebuild_tokenizer, config, descriptions, files)

    async def tokenize(batch: TextBatch) -> TokenBatch:
        own = short_texts.tokenizer_for(batch)
        return own.tokenize(batch) if own is not None else await to_tokenizer.send(batch)

    async def encode(name: str, batch: TokenBatch) -> VectorBatch:
        try:
            return await to_encoders[name].send(batch)
        except VersionChanged:
            short_texts.pause()
            raise

    async def finish(batch: PoolerBatch) -> PieceBatch:
        # A hop costs more CPU than finishing a few vectors; the Pooler takes what would hold up the event loop.
        return own_pooler.finish(batch) if batch.is_brief else await to_pooler.send(batch)

    async def score(batch: InteractionBatch) -> Float32:
        if batch.is_light:
            return await offload.run(batch.cost_s, own_pooler.score, batch)
        return await to_scorer.send(batch)

    async def tokens(
        model: str, content: Input, add_special: bool, parse_special: bool, with_pieces: bool
    ) -> ShownTokens:
        shown: ShownTokens = await call_again(
            tokenizer, "tokens", model, content, add_special, parse_special, with_pieces
        )
        return shown

    async def text(model: str, ids: Int32) -> str:
        return str(await call_again(tokenizer, "text", model, ids))

    async def check_ready() -> None:
        waiting = await watch.not_running()
        if waiting:
            raise NotReady(f"not running yet: {', '.join(waiting)}; try again", retry_after_s=1)

    senders = Senders(
        tokenize=tokenize,
        encode=encode,
        finish=finish,
        score=score,
        outstanding=lambda name: config.batching.outstanding * watch.running(f"Encoder-{name}"),
        tokens=tokens,
        text=text,
        running=lambda name: watch.can_take_work(f"Encoder-{name}"),
        message_bytes=cap_bytes,
        quarantine=quarantine,
    )

    def close() -> None:
        watch.stop()
        offload.close()

    # Of other processes their own health checks tell.
    return Wiring(descriptions, senders, check_ready, lambda: None, close)


class _ShortTexts:
    """Which texts the ingress tokenizes itself: a hop costs more CPU than tokenizing few characters."""

    def __init__(self, most_characters: int) -> None:
        self.tokenizer: Tokenizer | None = None
        self._most_characters = most_characters
        self._again_at_s = 0.0

    def tokenizer_for(self, batch: TextBatch) -> Tokenizer | None:
        """Return the own tokenizer where it is to be used for ``batch``."""
        short = self.tokenizer is not None and batch.weight <= self._most_characters and batch.cost_s <= INLINE_S
        return self.tokenizer if short and time.monotonic() >= self._again_at_s else None

    def pause(self) -> None:
        """Leave it to the Tokenizer for a while: the encoders are of another version than this ingress."""
        self._again_at_s = time.monotonic() + _OTHER_VERSION_S


async def _of_version(version: str, tokenizer: DeploymentHandle, method: str) -> Any:
    """Ask a tokenizer of this version; while it replaces another one, one of the old version may answer."""
    while True:
        answer = await call_again(tokenizer, method, version)
        if answer is not None:
            return answer
        await asyncio.sleep(_DESCRIBE_AGAIN_S)

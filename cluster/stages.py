"""The stages as the ingress reaches them: natural batching at each boundary, the split of a large call, the merge in order.

A wiring supplies the senders, which carry one message each; everything between them is here, and both wirings run it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from cluster.admission import Admission
from cluster.batching.dispatcher import Dispatcher
from cluster.batching.planning import split_by_tokens
from cluster.batching.reuse import Reuse
from cluster.calls import Input
from cluster.config import PoolhouseConfig
from cluster.demand import estimate_tokens, learn_ratio
from cluster.errors import PayloadTooLarge
from cluster.message_sizes import pooler_parts, scorer_parts, text_parts, token_parts
from cluster.offload import its_turn
from cluster.pooler import InteractionBatch, PieceBatch, PoolerBatch
from cluster.quarantine import Quarantine
from cluster.routing import Router
from cluster.telemetry.metrics import count_encoded
from cluster.telemetry.tracing import TRACING
from cluster.texts import TextBatch
from cluster.tokenization import ShownTokens
from cluster.types import Backlog, Float32, Int32, Lane, ModelDescription, PoolingType, TokenBatch, VectorBatch

# Numbers in one message to the Pooler: 16 MiB.
_POOLER_VALUES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Senders:
    """How a wiring carries one message to each stage.

    ``outstanding`` gives the number of messages that an encoder may have in flight in each lane, ``running`` its replicas: 0
    while it is starting. ``message_bytes`` is what one message, or its answer, may weigh, None without a bound; a single item
    above it is sent alone, and the sender finds a way. ``quarantine`` learns what the sender finds out when nobody waits.
    """

    tokenize: Callable[[TextBatch], Awaitable[TokenBatch]]
    encode: Callable[[str, TokenBatch], Awaitable[VectorBatch]]
    finish: Callable[[PoolerBatch], Awaitable[PieceBatch]]
    score: Callable[[InteractionBatch], Awaitable[Float32]]
    outstanding: Callable[[str], int]
    tokens: Callable[[str, Input, bool, bool, bool], Awaitable[ShownTokens]]
    text: Callable[[str, Int32], Awaitable[str]]
    running: Callable[[str], int]
    message_bytes: int | None = None
    quarantine: Quarantine = field(default_factory=Quarantine)


class Stages:
    """Carries messages to the stages; what one request needs of them is in ``cluster.pipeline``."""

    def __init__(self, config: PoolhouseConfig, descriptions: Mapping[str, ModelDescription], senders: Senders) -> None:
        self.config = config
        self.senders = senders
        self.descriptions = dict(descriptions)
        self.router = Router(config, {name: description.facts for name, description in descriptions.items()})
        self._name = uuid.uuid4().hex[:12]
        self.admission = Admission(config, senders.running)
        self.quarantine = senders.quarantine
        batching, cap_bytes = config.batching, senders.message_bytes
        self.reuse = Reuse(batching.cache_bytes) if batching.deduplicate or batching.cache_bytes else None
        self._tokenizers = {
            name: Dispatcher[TextBatch, TokenBatch](
                send=senders.tokenize,
                join=TextBatch.concatenate,
                pick=_pick_tokens,
                weigh=lambda batch: (len(batch), batch.weight),
                outstanding=lambda: batching.outstanding,
                cap_items=batching.message_items * 4,
                cap_weight=lambda: batching.message_tokens * 32,
                parts=text_parts(cap_bytes, descriptions[name].max_tokens) if cap_bytes else None,
            )
            for name in config.models
        }
        self._encoders = {
            name: Dispatcher[TokenBatch, VectorBatch](
                send=partial(self._send_to_encoder, name),
                join=TokenBatch.concatenate,
                pick=lambda result, begin, end: result.select(range(begin, end)),
                weigh=lambda batch: (len(batch), len(batch.token_ids)),
                outstanding=partial(self._outstanding, name),
                cap_items=batching.message_items,
                cap_weight=partial(self.admission.message_tokens, name),
                replicas=partial(senders.running, name),
                # While a new version of the model replaces an old one, tokenizers of both answer.
                kind=lambda batch: batch.fingerprint,
                leave=lambda batch, begin, end: batch.gone.update(range(begin, end)),
                parts=token_parts(cap_bytes, descriptions[encoder.model].facts) if cap_bytes else None,
            )
            for name, encoder in config.encoders.items()
        }
        widest = max(description.facts.dimensions for description in descriptions.values())
        group_bytes = batching.message_tokens * widest * 4
        # Documents' token matrices, of all requests together: as much as two of the largest answers.
        self.comparing = asyncio.Semaphore(max(8, 2 * config.limits.max_answer_bytes // group_bytes))
        self._pooler = Dispatcher[PoolerBatch, PieceBatch](
            send=senders.finish,
            join=PoolerBatch.concatenate,
            pick=PieceBatch.pick,
            weigh=lambda batch: (len(batch), len(batch.vectors.values)),
            outstanding=lambda: 2 * batching.outstanding,
            cap_items=batching.message_items,
            cap_weight=lambda: _POOLER_VALUES,
            parts=pooler_parts(cap_bytes) if cap_bytes else None,
        )
        self._scorer = Dispatcher[InteractionBatch, Float32](
            send=senders.score,
            join=InteractionBatch.concatenate,
            pick=lambda scores, begin, end: scores[begin:end],
            weigh=lambda batch: (len(batch), len(batch.documents.values)),
            outstanding=lambda: 2 * batching.outstanding,
            cap_items=batching.message_items,
            cap_weight=lambda: _POOLER_VALUES,
            parts=scorer_parts(cap_bytes) if cap_bytes else None,
        )

    @property
    def queued_tokens(self) -> dict[str, int]:
        """Tokens that wait here, by the encoder that they wait for."""
        return {name: encoder.queued_weight for name, encoder in self._encoders.items()}

    def backlog(self, encoder: str) -> Backlog:
        """What this ingress has admitted for an encoder, as of now."""
        return Backlog(self._name, self.admission.loads[encoder].total_tokens, time.monotonic())

    async def tokenize(self, texts: TextBatch, lane: Lane) -> TokenBatch:
        """Return the texts' ids; items that cannot be tokenized carry their own errors.

        Raises:
            Overloaded: they could not be encoded within their deadline.
            NotReady: an encoder of their route is still starting.
        """
        # What made the texts has had its part of this turn.
        await its_turn()
        admission = self.admission
        shares = self.router.shares(texts.model, texts.options[0].pooling)
        description = self.descriptions[texts.model]
        estimate = estimate_tokens(admission, texts, description)
        admission.check(shares, estimate, lane, texts.requests[0].remaining_s)
        with admission.hold(shares, estimate, lane):
            tokens = await self._tokenize(texts, lane)
            await its_turn()
        learn_ratio(admission, texts, tokens, description)
        await its_turn()
        return tokens

    async def _tokenize(self, texts: TextBatch, lane: Lane) -> TokenBatch:
        with TRACING.span("tokenize", texts.requests[0].trace) as trace:
            if TRACING.on:
                texts.requests = [replace(request, trace=trace) for request in texts.requests]
            # Measured for its admission.
            await its_turn()
            tokens = await self._tokenizers[texts.model].submit(texts, lane)
            return tokens if len(tokens.requests) == 1 else _pick_tokens(tokens, 0, len(tokens))

    async def finish(self, batch: PoolerBatch, lane: Lane, trace: str | None = None) -> PieceBatch:
        """Return the printed numbers of a request's items."""
        with TRACING.span("finish", trace):
            return await self._pooler.submit(batch, lane)

    async def score(self, batch: InteractionBatch, lane: Lane, trace: str | None = None) -> Float32:
        """Return how near each document's vectors are to its query's, float32 ``[n_documents]``."""
        with TRACING.span("score", trace):
            return await self._scorer.submit(batch, lane)

    async def encode(
        self,
        model: str,
        pooling: PoolingType,
        tokens: TokenBatch,
        lane: Lane,
        use: Callable[[int, VectorBatch], Awaitable[VectorBatch]] | None = None,
    ) -> VectorBatch:
        """Return the results of a call's items in order; what is equal is encoded once.

        Args:
            use: is given the index of the first item and the results of each message as they come; what it returns
                takes their place.
        """

        async def encode_part(first: int, part: TokenBatch) -> VectorBatch:
            await its_turn()
            if self.reuse is None:
                vectors = await self._encode_message(model, pooling, part, lane)
            else:
                vectors = await self.reuse.encode(
                    part, lane, lambda own: self._encode_message(model, pooling, own, lane)
                )
            return vectors if use is None else await use(first, vectors)

        batching = self.config.batching
        ranges = split_by_tokens(tokens.lengths, batching.message_tokens, batching.message_items)
        if len(ranges) <= 1:
            return await encode_part(0, tokens)
        tasks: list[asyncio.Future[VectorBatch]] = []
        try:
            for begin, end in ranges:
                tasks.append(asyncio.ensure_future(encode_part(begin, tokens.slice(begin, end))))
                # One part in each turn of the event loop: all of a large request would hold it up.
                await asyncio.sleep(0)
            parts = await asyncio.gather(*tasks)
        finally:
            # When one part fails, nobody needs the others.
            for task in tasks:
                task.cancel()
        await its_turn()
        return VectorBatch.concatenate(parts)

    async def _encode_message(self, model: str, pooling: PoolingType, tokens: TokenBatch, lane: Lane) -> VectorBatch:
        """Encode what is one message at most."""
        attributes = {"poolhouse.model": model, "poolhouse.pooling": pooling.value, "poolhouse.items": len(tokens)}
        with TRACING.span("encode", tokens.requests[0].trace, attributes) as trace:
            if TRACING.on:
                tokens.requests = [replace(request, trace=trace) for request in tokens.requests]
            vectors = await self._encode_part(self.router.choose(model, pooling), tokens, lane)
        cut_items = int(np.count_nonzero(tokens.cut_tokens))
        count_encoded(model, pooling, len(tokens), len(tokens.token_ids), cut_items)
        return vectors

    async def _encode_part(self, encoder: str, tokens: TokenBatch, lane: Lane) -> VectorBatch:
        with self.admission.hold({encoder: 1.0}, len(tokens.token_ids), lane):
            return await self._encoders[encoder].submit(self.quarantine.refuse(tokens), lane)

    def _outstanding(self, name: str) -> int:
        # While one message is in a slot, the next one is on its way, so that no slot waits for the ingress.
        return self.senders.outstanding(name) * self.admission.loads[name].slots

    async def _send_to_encoder(self, name: str, batch: TokenBatch) -> VectorBatch:
        # Again: what was let in may have waited here while an equal item was found out, or its client.
        batch = self.quarantine.refuse(batch)
        batch.backlog = self.backlog(name)
        answer = await self.senders.encode(name, batch)
        self.admission.observe(name, answer)
        if answer.errors:
            self.quarantine.learn(batch, answer)
        return answer

    def lane(self, items: int, tokens: int) -> Lane:
        """The lane of a request that names none: by its size."""
        batching = self.config.batching
        return Lane.BULK if items > batching.bulk_items or tokens > batching.bulk_tokens else Lane.INTERACTIVE

    def check_token_limit(self, tokens: TokenBatch, param: str) -> None:
        """Check a request's tokens against the configured limit; raises as ``check_tokens``."""
        self.check_tokens(len(tokens.token_ids), param)

    def check_tokens(self, count: int, param: str) -> None:
        """Check a number of tokens against the configured limit of one request.

        Raises:
            PayloadTooLarge: it is above.
        """
        limit = self.config.limits.max_tokens
        if limit is not None and count > limit:
            raise PayloadTooLarge(f"the request has {count} tokens and the limit is {limit}; send it in parts", param)


def _pick_tokens(result: TokenBatch, begin: int, end: int) -> TokenBatch:
    """Cut one request's items out of a coalesced message; its facts become the only ones."""
    part = result.select(range(begin, end))
    owner = int(part.owner[0]) if len(part) else 0
    part.requests = [result.requests[owner]]
    part.owner = np.zeros(len(part), dtype=np.int32)
    return part


__all__ = ["ModelDescription", "Senders", "Stages"]

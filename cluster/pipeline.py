"""A call's way through the stages: tokenize, encode, finish. The ingress drives it; both wirings run this same code.

A wiring supplies three kinds of senders (one for the Tokenizer, one for each encoder, one for the Pooler), which carry one
message each. Everything between is here: natural batching at each boundary, the split of a large call over several
messages, and the merge in order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from cluster.batching.dispatcher import Dispatcher
from cluster.batching.planning import split_by_tokens
from cluster.calls import AnswerOptions, EmbedAnswer, EmbedCall, Input, OutputType, TokenizeCall
from cluster.config import PoolhouseConfig
from cluster.errors import DeadlineExceeded, InvalidRequest, PayloadTooLarge, PoolhouseError
from cluster.pooler import PieceBatch, PoolerBatch
from cluster.routing import Router
from cluster.tokenization import TextBatch, TextOptions, prompt_of
from cluster.types import Lane, ModelFacts, PoolingType, RequestFacts, TokenBatch, VectorBatch


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What the Tokenizer, which owns the model's files, tells the ingress."""

    facts: ModelFacts
    fingerprint: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Senders:
    """How a wiring carries one message to each stage.

    ``outstanding`` gives the number of messages that an encoder may have in flight in each lane.
    """

    tokenize: Callable[[TextBatch], Awaitable[TokenBatch]]
    encode: Callable[[str, TokenBatch], Awaitable[VectorBatch]]
    finish: Callable[[PoolerBatch], Awaitable[PieceBatch]]
    outstanding: Callable[[str], int]
    tokens: Callable[[str, Input, bool, bool], Awaitable[list[tuple[int, bytes]]]]
    text: Callable[[str, list[int]], Awaitable[str]]


class Pipeline:
    """Carries calls through the stages."""

    def __init__(self, config: PoolhouseConfig, descriptions: Mapping[str, ModelDescription], senders: Senders) -> None:
        self.config = config
        self._senders = senders
        self.descriptions = dict(descriptions)
        self.router = Router(config, {name: description.facts for name, description in descriptions.items()})
        batching = config.batching
        self._tokenizers = {
            name: Dispatcher[TextBatch, TokenBatch](
                send=senders.tokenize,
                join=TextBatch.concatenate,
                pick=_pick_tokens,
                weigh=lambda batch: (len(batch), batch.weight),
                outstanding=lambda: batching.outstanding,
                cap_items=batching.message_items * 4,
                cap_weight=batching.message_tokens * 32,
            )
            for name in config.models
        }
        self._encoders = {
            name: Dispatcher[TokenBatch, VectorBatch](
                send=_bind(senders.encode, name),
                join=TokenBatch.concatenate,
                pick=lambda result, begin, end: result.select(range(begin, end)),
                weigh=lambda batch: (len(batch), len(batch.token_ids)),
                outstanding=_bind_outstanding(senders.outstanding, name),
                cap_items=batching.message_items,
                cap_weight=batching.message_tokens,
            )
            for name in config.encoders
        }
        self._pooler = Dispatcher[PoolerBatch, PieceBatch](
            send=senders.finish,
            join=PoolerBatch.concatenate,
            pick=PieceBatch.pick,
            weigh=lambda batch: (len(batch), len(batch.vectors.values)),
            outstanding=lambda: 2 * batching.outstanding,
            cap_items=batching.message_items,
            cap_weight=4 * 1024 * 1024,
        )

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait in the ingress for an encoder."""
        return sum(encoder.queued_weight for encoder in self._encoders.values())

    async def embed(self, call: EmbedCall, request_id: str, trace: str | None = None) -> EmbedAnswer:
        """Answer a call within its time limit.

        Raises:
            InvalidRequest: and its children, for what is wrong with the call; all bad items at once.
            DeadlineExceeded: the limit passed.
            PoolhouseError: a stage failed.
        """
        timeout_s = min(call.timeout_s or self.config.limits.timeout_s, self.config.limits.timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._embed(call, request_id, trace, time.monotonic() + timeout_s)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the answer was not ready within {timeout_s:g} s; send less at once or a longer timeout_s"
            ) from error

    async def tokens(self, call: TokenizeCall) -> list[tuple[int, bytes]]:
        """Return the (id, piece) pairs of a content."""
        return await self._senders.tokens(
            self.router.resolve(call.model), call.content, call.add_special, call.parse_special
        )

    async def text(self, model: str | None, ids: list[int]) -> str:
        """Return the text of token ids."""
        return await self._senders.text(self.router.resolve(model), ids)

    async def _embed(self, call: EmbedCall, request_id: str, trace: str | None, deadline_s: float) -> EmbedAnswer:
        started_s = time.monotonic()
        model = self.router.resolve(call.model)
        pooling = call.pooling or self.router.default_pooling(model)
        self.router.check(model, pooling)
        _check_options(call.options, pooling, model, self.config, self.descriptions[model].facts)
        model_config = self.config.models[model]
        request = RequestFacts(
            request_id=request_id,
            lane=call.lane or self._lane(len(call.inputs), 0),
            remaining_s=deadline_s - started_s,
            trace=trace,
        )
        texts = TextBatch(
            model=model,
            inputs=call.inputs,
            owner=[0] * len(call.inputs),
            options=[
                TextOptions(
                    pooling=pooling,
                    truncate=call.truncate or model_config.truncate,
                    prompt=prompt_of(model_config, call.prompt_name, call.prompt_param),
                    parse_special=model_config.parse_special if call.parse_special is None else call.parse_special,
                )
            ],
            requests=[request],
        )
        tokens = await self._tokenizers[model].submit(texts, request.lane)
        _raise_item_errors(tokens.errors, call.param, len(call.inputs))
        self._check_token_limit(tokens, call.param)
        tokenized_s = time.monotonic()
        lane = call.lane or self._lane(len(tokens), len(tokens.token_ids))
        tokens.requests = [replace(request, lane=lane, remaining_s=deadline_s - tokenized_s)]
        vectors = await self._encode(model, pooling, tokens, lane)
        _raise_item_errors(vectors.errors, call.param, len(call.inputs))
        encoded_s = time.monotonic()
        finished = await self._pooler.submit(
            PoolerBatch(
                vectors=vectors,
                owner=[0] * len(vectors),
                options=[call.options],
                matrix=[pooling is PoolingType.NONE] * len(vectors),
                scores=[pooling is PoolingType.RANK] * len(vectors),
            ),
            lane,
        )
        ended_s = time.monotonic()
        return EmbedAnswer(
            model=model,
            pooling=pooling,
            fingerprint=tokens.fingerprint,
            pieces=finished.pieces,
            shapes=finished.shapes,
            tokens=tokens.lengths.tolist(),
            cut_tokens=tokens.cut_tokens.tolist(),
            timings_s={
                "tokenize": tokenized_s - started_s,
                "queue": max(0.0, encoded_s - tokenized_s - vectors.encode_s),
                "encode": vectors.encode_s,
                "pool": ended_s - encoded_s,
                "total": ended_s - started_s,
            },
        )

    async def _encode(self, model: str, pooling: PoolingType, tokens: TokenBatch, lane: Lane) -> VectorBatch:
        """Spread a call over as many messages as its tokens ask for, and merge the results in order."""
        batching = self.config.batching
        ranges = split_by_tokens(tokens.lengths, batching.message_tokens, batching.message_items)
        if len(ranges) == 1:
            return await self._encoders[self.router.choose(model, pooling)].submit(tokens, lane)
        parts = await asyncio.gather(
            *(
                self._encoders[self.router.choose(model, pooling)].submit(tokens.select(range(*part)), lane)
                for part in ranges
            )
        )
        return VectorBatch.concatenate(parts)

    def _lane(self, items: int, tokens: int) -> Lane:
        batching = self.config.batching
        return Lane.BULK if items > batching.bulk_items or tokens > batching.bulk_tokens else Lane.INTERACTIVE

    def _check_token_limit(self, tokens: TokenBatch, param: str) -> None:
        limit = self.config.limits.max_tokens
        if limit is not None and len(tokens.token_ids) > limit:
            raise PayloadTooLarge(
                f"the request has {len(tokens.token_ids)} tokens and the limit is {limit}; send it in parts", param
            )


def _bind(
    encode: Callable[[str, TokenBatch], Awaitable[VectorBatch]], name: str
) -> Callable[[TokenBatch], Awaitable[VectorBatch]]:
    return lambda batch: encode(name, batch)


def _bind_outstanding(outstanding: Callable[[str], int], name: str) -> Callable[[], int]:
    return lambda: outstanding(name)


def _pick_tokens(result: TokenBatch, begin: int, end: int) -> TokenBatch:
    """Cut one request's items out of a coalesced message; its facts become the only ones."""
    part = result.select(range(begin, end))
    owner = int(part.owner[0]) if len(part) else 0
    part.requests = [result.requests[owner]]
    part.owner = np.zeros(len(part), dtype=np.int32)
    return part


def _check_options(
    options: AnswerOptions, pooling: PoolingType, model: str, config: PoolhouseConfig, facts: ModelFacts
) -> None:
    if pooling is PoolingType.RANK and options.output_type is not OutputType.FLOAT:
        raise InvalidRequest(
            "output_dtype packs vectors and pooling type 'rank' returns scores; leave it out", "output_dtype"
        )
    wanted = options.dimensions
    if wanted is None:
        return
    allowed = config.models[model].dimensions
    if pooling is PoolingType.RANK:
        raise InvalidRequest(
            "dimensions cuts vectors and pooling type 'rank' returns scores; leave it out", "dimensions"
        )
    if wanted < 1 or wanted > facts.dimensions:
        raise InvalidRequest(
            f"dimensions is {wanted}; the model {model!r} has {facts.dimensions}, so send 1 to {facts.dimensions}",
            "dimensions",
        )
    if allowed is not None and wanted not in allowed and wanted != facts.dimensions:
        listed = ", ".join(str(dimension) for dimension in allowed)
        raise InvalidRequest(
            f"dimensions is {wanted}; the model {model!r} was trained to be cut to: {listed}", "dimensions"
        )


def _raise_item_errors(errors: Mapping[int, PoolhouseError], param: str, items: int) -> None:
    """Raise one error for all bad items; ``param`` names them (``input[17]``)."""
    if not errors:
        return
    numbered = sorted(errors.items())
    first = numbered[0][1]
    if len(numbered) == 1:
        where = param if items == 1 else f"{param}[{numbered[0][0]}]"
        raise type(first)(first.message, where, **first.extra)
    shown = numbered[:16]
    more = f" and {len(numbered) - len(shown)} more" if len(numbered) > len(shown) else ""
    listed = "; ".join(f"{param}[{item}]: {error.message}" for item, error in shown)
    kind = type(first) if all(type(error) is type(first) for error in errors.values()) else _worst(errors)
    raise kind(
        f"{len(numbered)} of {items} items cannot be served: {listed}{more}",
        ", ".join(f"{param}[{item}]" for item, _ in shown) + more,
    )


def _worst(errors: Mapping[int, PoolhouseError]) -> type[PoolhouseError]:
    """Return the kind to answer with: a fault of ours outweighs the client's, since a retry can help."""
    return type(max(errors.values(), key=lambda error: error.status))


__all__ = ["ModelDescription", "Pipeline", "Senders"]

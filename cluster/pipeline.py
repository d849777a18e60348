"""A call's way through the stages: tokenize, encode, finish. The ingress drives it; both wirings run this same code.

``cluster.stages`` carries the messages; here is what one request for vectors needs of each stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain

from cluster.answers import check_answer
from cluster.attempts import within_limit
from cluster.calls import AnswerOptions, DetokenizeCall, EmbedAnswer, EmbedCall, OutputType, TokenizeCall
from cluster.config import PoolhouseConfig
from cluster.errors import InvalidRequest
from cluster.input_sizes import sizes_of
from cluster.item_errors import raise_item_errors
from cluster.offload import its_turn
from cluster.pooler import PieceBatch, PoolerBatch
from cluster.routing import Router
from cluster.showing import ShowingAccount
from cluster.stages import ModelDescription, Senders, Stages
from cluster.texts import TextBatch, TextOptions
from cluster.timings import Span, count_queue, timings
from cluster.tokenization import ShownTokens, prompt_of
from cluster.types import ModelFacts, PoolingType, RequestFacts, TokenBatch, VectorBatch


class Pipeline:
    """Carries calls through the stages."""

    def __init__(self, config: PoolhouseConfig, descriptions: Mapping[str, ModelDescription], senders: Senders) -> None:
        self.stages = Stages(config, descriptions, senders)
        self._showing = ShowingAccount(config.limits)

    @property
    def config(self) -> PoolhouseConfig:
        """The whole configuration."""
        return self.stages.config

    @property
    def descriptions(self) -> dict[str, ModelDescription]:
        """What is known of each model."""
        return self.stages.descriptions

    @property
    def router(self) -> Router:
        """Which encoders answer which route."""
        return self.stages.router

    async def embed(
        self,
        call: EmbedCall,
        request_id: str,
        trace: str | None = None,
        take_room: Callable[[int], None] = lambda size_bytes: None,
    ) -> EmbedAnswer:
        """Answer a call within its time limit.

        Args:
            take_room: told how much memory the answer will need, before any of it is computed.

        Raises:
            InvalidRequest: and its children, for what is wrong with the call; all bad items at once.
            DeadlineExceeded: the limit passed.
            PoolhouseError: a stage failed.
        """
        started_s = time.monotonic()
        items, timeout_s = len(call.inputs), self.config.limits.within(call.timeout_s)
        return await within_limit(
            "embed", request_id, trace, items, timeout_s, lambda facts: self._embed(call, facts, started_s, take_room)
        )

    async def tokens(self, call: TokenizeCall, request_id: str, trace: str | None = None) -> ShownTokens:
        """Return a content's tokens within the call's time limit.

        Raises:
            InvalidRequest: an id is outside the vocabulary.
            PayloadTooLarge: it has more tokens than the limit.
            Overloaded: too much of this work waits already.
            DeadlineExceeded: the limit passed.
        """
        model, size = self.router.resolve(call.model), sizes_of([call.content]).weight

        async def attempt(facts: RequestFacts) -> ShownTokens:
            with self._showing.hold(size, facts.remaining_s):
                return await self.stages.senders.tokens(
                    model, call.content, call.add_special, call.parse_special, call.with_pieces
                )

        timeout_s = self.config.limits.within(call.timeout_s)
        shown = await within_limit("show tokens", request_id, trace, 1, timeout_s, attempt)
        self.stages.check_tokens(len(shown.ids), "content")
        return shown

    async def text(self, call: DetokenizeCall, request_id: str, trace: str | None = None) -> str:
        """Return the text of token ids; raises as ``tokens``."""
        model, size = self.router.resolve(call.model), len(call.ids)
        self.stages.check_tokens(size, "tokens")

        async def attempt(facts: RequestFacts) -> str:
            with self._showing.hold(size, facts.remaining_s):
                return await self.stages.senders.text(model, call.ids)

        timeout_s = self.config.limits.within(call.timeout_s)
        return await within_limit("show text", request_id, trace, 1, timeout_s, attempt)

    async def _embed(
        self, call: EmbedCall, facts: RequestFacts, started_s: float, take_room: Callable[[int], None]
    ) -> EmbedAnswer:
        model = self.router.resolve(call.model)
        pooling = call.pooling or self.router.default_pooling(model)
        self.router.check(model, pooling)
        _check_options(call.options, pooling, model, self.config, self.descriptions[model].facts)
        model_config = self.config.models[model]
        request = replace(facts, lane=call.lane or self.stages.lane(len(call.inputs), 0))
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
        tokenize_s = time.monotonic()
        tokens = await self.stages.tokenize(texts, request.lane)
        raise_item_errors(tokens.errors, call.param, len(call.inputs), listed=call.listed)
        self.stages.check_token_limit(tokens, call.param)
        take_room(self._answer_bytes(call, model, pooling, tokens))
        tokenized_s = time.monotonic()
        lane = call.lane or self.stages.lane(len(tokens), len(tokens.token_ids))
        tokens.requests = [replace(request, lane=lane)]
        printed: dict[int, PieceBatch] = {}
        pooled: list[Span] = []

        async def finish(first: int, part: VectorBatch) -> VectorBatch:
            began_s = time.monotonic()
            if part.errors:
                return part
            batch = PoolerBatch(
                vectors=part,
                owner=[0] * len(part),
                options=[call.options],
                matrix=[pooling is PoolingType.NONE] * len(part),
                scores=[pooling is PoolingType.RANK] * len(part),
            )
            printed[first] = await self.stages.finish(batch, lane, request.trace)
            pooled.append((began_s, time.monotonic()))
            # The numbers of a large request do not wait for the last of it.
            return replace(part, values=part.values[:0].copy())

        vectors = await self.stages.encode(model, pooling, tokens, lane, finish)
        raise_item_errors(vectors.errors, call.param, len(call.inputs), listed=call.listed)
        await its_turn()
        finished = [printed[first] for first in sorted(printed)]
        ended_s = time.monotonic()
        timings_s = timings((started_s, ended_s), (tokenize_s, tokenized_s), [vectors.provenance.spans], pooled)
        count_queue(model, pooling, timings_s)
        await its_turn()
        return EmbedAnswer(
            model=model,
            pooling=pooling,
            fingerprint=tokens.fingerprint,
            pieces=list(chain.from_iterable(part.pieces for part in finished)),
            shapes=list(chain.from_iterable(part.shapes for part in finished)),
            tokens=tokens.lengths.tolist(),
            cut_tokens=tokens.cut_tokens.tolist(),
            builds=vectors.provenance.used_builds,
            timings_s=timings_s,
        )

    def _answer_bytes(self, call: EmbedCall, model: str, pooling: PoolingType, tokens: TokenBatch) -> int:
        facts = self.descriptions[model].facts
        rows = len(tokens.token_ids) if pooling is PoolingType.NONE else len(tokens)
        width = max(1, len(facts.labels)) if pooling is PoolingType.RANK else facts.dimensions
        return check_answer(call.options, len(tokens), rows, width, self.config.limits, call.param)


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


__all__ = ["ModelDescription", "Pipeline", "Senders"]

"""The paths that rerank and classify: which dialect answers on which, told apart by keys where two share one."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from cluster.answers import check_printed
from cluster.api import cohere, jina, tei, vllm
from cluster.api.headers import ignored_fields_header, score_headers
from cluster.api.keys import ApiKey, check_items, permitted_model
from cluster.api.requests import BodyReader, Handler, PrintError, RequestContext, print_error
from cluster.api.responses import Answers, Piece
from cluster.api.scoring import RerankRequest
from cluster.calls import ClassifyAnswer, ClassifyCall, RerankAnswer, Strategy
from cluster.config import Limits
from cluster.errors import PoolhouseError
from cluster.offload import Offload
from cluster.reranking import Reranking

Answer = TypeVar("Answer", RerankAnswer, ClassifyAnswer)

# What is printed of one item and one score, and the CPU time that it takes.
_ITEM_BYTES, _VALUE_BYTES = 192, 24
_ITEM_S, _VALUE_S, _CHARACTER_S = 3e-6, 1e-6, 1e-9


class RerankPaths:
    """Handlers of all rerank dialects."""

    def __init__(self, reranking: Reranking, bodies: BodyReader, answers: Answers, offload: Offload) -> None:
        self._reranking = reranking
        self._bodies = bodies
        self._answers = answers
        self._offload = offload

    def __iter__(self) -> Iterator[tuple[str, Handler, PrintError]]:
        """Yield path, handler and the shape of its errors."""
        for path in ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking"):
            yield path, self.rerank, print_error
        yield "/v2/rerank", self.cohere, cohere.print_error
        for path in ("/score", "/v1/score"):
            yield path, self.score, print_error
        for path in ("/classify", "/v1/classify"):
            yield path, self.classify, print_error
        yield "/predict", self.predict, tei.print_error
        yield "/similarity", self.similarity, tei.print_error

    async def rerank(self, request: Request, context: RequestContext) -> Response:
        """llama-server's, Jina's and vLLM's shape; TEI's where the body has ``texts`` in place of ``documents``."""
        is_tei, parsed = await self._bodies.parse(request, parse_rerank)
        if is_tei:
            context.printer = tei.print_error
        if isinstance(parsed, PoolhouseError):
            raise parsed
        return await self._rank(
            request, context, parsed, partial(tei.format_rerank if is_tei else jina.format_rerank, request=parsed)
        )

    async def cohere(self, request: Request, context: RequestContext) -> Response:
        """``POST /v2/rerank``."""
        parsed = await self._bodies.parse(request, cohere.parse_rerank)
        return await self._rank(
            request, context, parsed, partial(cohere.format_rerank, request=parsed, request_id=context.request_id)
        )

    async def score(self, request: Request, context: RequestContext) -> Response:
        """``POST /score``."""
        call, ignored = await self._bodies.parse(request, vllm.parse_score)
        form = partial(vllm.format_score, request_id=context.request_id, created_s=int(time.time()))
        return await self._rank(request, context, RerankRequest(call, False, ignored), form)

    async def similarity(self, request: Request, context: RequestContext) -> Response:
        """``POST /similarity``."""
        parsed = await self._bodies.parse(request, tei.parse_similarity)
        return await self._rank(request, context, parsed, tei.format_similarity)

    async def classify(self, request: Request, context: RequestContext) -> Response:
        """``POST /classify``."""
        parsed = await self._bodies.parse(request, vllm.parse_classify)
        form = partial(
            vllm.format_classify,
            request_id=context.request_id,
            created_s=int(time.time()),
            unit_interval=parsed.call.unit_interval,
        )
        return await self._label(request, context, parsed.call, parsed.ignored, form)

    async def predict(self, request: Request, context: RequestContext) -> Response:
        """``POST /predict``."""
        parsed = await self._bodies.parse(request, tei.parse_predict)
        return await self._label(
            request, context, parsed.call, parsed.ignored, partial(tei.format_predict, request=parsed)
        )

    async def _rank(
        self,
        request: Request,
        context: RequestContext,
        parsed: RerankRequest,
        form: Callable[[RerankAnswer], list[Piece]],
    ) -> Response:
        call, trace = parsed.call, request.headers.get("traceparent")
        call.model = self._permitted(call.model, call.strategy, context.key)
        check_items(context.key, len(call.documents), call.param)
        returned = sum(map(len, call.documents)) if parsed.return_documents else 0
        answering = partial(self._reranking.rerank, call, context.request_id, trace)
        return await self._respond(answering, form, parsed.ignored, len(call.documents), 1, returned, call.param)

    async def _label(
        self,
        request: Request,
        context: RequestContext,
        call: ClassifyCall,
        ignored: list[str],
        form: Callable[[ClassifyAnswer], list[Piece]],
    ) -> Response:
        call.model = self._permitted(call.model, Strategy.CROSS_ENCODER, context.key)
        check_items(context.key, len(call.inputs), call.param)
        answering = partial(self._reranking.classify, call, context.request_id, request.headers.get("traceparent"))
        labels = self._reranking.labels(call.model)
        return await self._respond(answering, form, ignored, len(call.inputs), labels, 0, call.param)

    async def _respond(
        self,
        answering: Callable[[], Awaitable[Answer]],
        form: Callable[[Answer], list[Piece]],
        ignored: list[str],
        items: int,
        values: int,
        characters: int,
        param: str,
    ) -> Response:
        """Await an answer of so many items and values in each, and print it with so many characters of the request's own."""
        size_bytes = items * (_ITEM_BYTES + values * _VALUE_BYTES) + characters
        check_printed(size_bytes, self._reranking.config.limits, param)
        room = self._answers.room()
        try:
            room.take(size_bytes)
            answer = await answering()
            cost_s = items * (_ITEM_S + values * _VALUE_S) + characters * _CHARACTER_S
            pieces = await self._offload.run(cost_s, form, answer)
            headers = {**score_headers(answer), **ignored_fields_header(ignored)}
            return room.respond(pieces, headers, "application/json")
        except BaseException:
            room.close()
            raise

    def _permitted(self, asked: str | None, strategy: Strategy | None, key: ApiKey | None) -> str:
        """Return the model of a call. What the key may not use is refused before anything is said of it."""
        name = self._reranking.choose_model(asked, strategy, None if key is None else key.models)
        return permitted_model(key, self._reranking.router, name)


def parse_rerank(
    body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits
) -> tuple[bool, RerankRequest | PoolhouseError]:
    """Read TEI's shape, which the first member tells, or Jina's; an error is returned, since it has that shape, too."""
    is_tei = body.get("texts") is not None and body.get("documents") is None
    try:
        return is_tei, (tei if is_tei else jina).parse_rerank(body, headers, limits)
    except PoolhouseError as error:
        return is_tei, error.with_traceback(None)

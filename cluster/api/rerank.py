"""The paths that rerank and classify: which dialect answers on which, told apart by keys where two share one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cluster.api import cohere, jina, tei, vllm
from cluster.api.headers import ignored_fields_header, score_headers
from cluster.api.keys import ApiKey, check_items, permitted_model
from cluster.api.requests import BodyReader, Handler, PrintError, RequestContext, print_error
from cluster.calls import ClassifyAnswer, ClassifyCall, RerankAnswer, RerankCall, Strategy
from cluster.reranking import Reranking


class RerankPaths:
    """Handlers of all rerank dialects."""

    def __init__(self, reranking: Reranking, bodies: BodyReader) -> None:
        self._reranking = reranking
        self._bodies = bodies
        self._limits = reranking.config.limits

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
        body = await self._bodies.read(request)
        if body.get("texts") is not None and body.get("documents") is None:
            context.printer = tei.print_error
            return await self._tei(request, body, context)
        parsed = jina.parse_rerank(body, request.headers, self._limits)
        answer = await self._rank(parsed.call, request, context)
        return _response(jina.format_rerank(answer, parsed), answer, parsed.ignored)

    async def cohere(self, request: Request, context: RequestContext) -> Response:
        """``POST /v2/rerank``."""
        parsed = cohere.parse_rerank(await self._bodies.read(request), request.headers, self._limits)
        answer = await self._rank(parsed.call, request, context)
        return _response(cohere.format_rerank(answer, parsed, context.request_id), answer, parsed.ignored)

    async def score(self, request: Request, context: RequestContext) -> Response:
        """``POST /score``."""
        call, ignored = vllm.parse_score(await self._bodies.read(request), request.headers, self._limits)
        answer = await self._rank(call, request, context)
        return _response(vllm.format_score(answer, context.request_id, int(time.time())), answer, ignored)

    async def similarity(self, request: Request, context: RequestContext) -> Response:
        """``POST /similarity``."""
        parsed = tei.parse_similarity(await self._bodies.read(request), request.headers, self._limits)
        answer = await self._rank(parsed.call, request, context)
        return _response(tei.format_similarity(answer), answer, parsed.ignored)

    async def classify(self, request: Request, context: RequestContext) -> Response:
        """``POST /classify``."""
        parsed = vllm.parse_classify(await self._bodies.read(request), request.headers, self._limits)
        answer = await self._label(parsed.call, request, context)
        content = vllm.format_classify(answer, context.request_id, int(time.time()), parsed.call.unit_interval)
        return _response(content, answer, parsed.ignored)

    async def predict(self, request: Request, context: RequestContext) -> Response:
        """``POST /predict``."""
        parsed = tei.parse_predict(await self._bodies.read(request), request.headers, self._limits)
        answer = await self._label(parsed.call, request, context)
        return _response(tei.format_predict(answer, parsed), answer, parsed.ignored)

    async def _tei(self, request: Request, body: dict[str, Any], context: RequestContext) -> Response:
        parsed = tei.parse_rerank(body, request.headers, self._limits)
        answer = await self._rank(parsed.call, request, context)
        return _response(tei.format_rerank(answer, parsed), answer, parsed.ignored)

    async def _rank(self, call: RerankCall, request: Request, context: RequestContext) -> RerankAnswer:
        call.model = self._permitted(call.model, call.strategy, context.key)
        check_items(context.key, len(call.documents), call.param)
        return await self._reranking.rerank(call, context.request_id, request.headers.get("traceparent"))

    async def _label(self, call: ClassifyCall, request: Request, context: RequestContext) -> ClassifyAnswer:
        call.model = self._permitted(call.model, Strategy.CROSS_ENCODER, context.key)
        check_items(context.key, len(call.inputs), call.param)
        return await self._reranking.classify(call, context.request_id, request.headers.get("traceparent"))

    def _permitted(self, asked: str | None, strategy: Strategy | None, key: ApiKey | None) -> str:
        """Return the model of a call. What the key may not use is refused before anything is said of it."""
        name = self._reranking.choose_model(asked, strategy, None if key is None else key.models)
        return permitted_model(key, self._reranking.router, name)


def _response(content: bytes, answer: RerankAnswer | ClassifyAnswer, ignored: list[str]) -> Response:
    headers = {**score_headers(answer), **ignored_fields_header(ignored)}
    return Response(content, headers=headers, media_type="application/json")

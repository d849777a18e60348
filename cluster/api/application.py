"""The HTTP application: which dialect answers on which path.

The paths that carry work are plain Starlette endpoints: the body is parsed once, by the dialect, and the answer is bytes
already. FastAPI holds them together and serves the description of the API.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cluster.api import llama_server, openai
from cluster.api.connection import CLIENT_CLOSED_REQUEST, while_connected
from cluster.api.errors import unexpected_body
from cluster.api.headers import answer_headers, ignored_fields_header
from cluster.api.keys import ApiKey, KeyRing, check_items, permitted_model
from cluster.api.listing import format_info, format_model, format_models
from cluster.api.matrix import format_npy
from cluster.api.requests import BodyReader, Handler, PrintError, RequestContext, error_response, print_error
from cluster.api.rerank import RerankPaths
from cluster.attempts import CLIENT
from cluster.calls import EmbedCall, Encoding
from cluster.errors import InvalidRequest, MethodNotAllowed, NotFound, PoolhouseError
from cluster.pipeline import Pipeline
from cluster.reranking import Reranking
from cluster.telemetry.metrics import REFUSALS, count_answer

logger = logging.getLogger("poolhouse")

# Below so many ids or characters a change of threads costs more than the work that it takes off the event loop.
_PRINTED_HERE = 8_192


def create_application(pipeline: Pipeline, check_ready: Callable[[], Awaitable[None]]) -> FastAPI:
    """Build the ASGI application.

    Args:
        check_ready: raises NotReady while some awake part cannot answer.
    """
    bodies = BodyReader(pipeline.config.limits)
    paths = _Paths(pipeline, check_ready, bodies)
    application = _Application(title="Poolhouse", docs_url=None, redoc_url=None, openapi_url=None)
    keys = KeyRing.load(pipeline.config.api_keys)

    def add(
        path: str, method: str, handler: Handler, *, needs_key: bool = True, printer: PrintError = print_error
    ) -> None:
        paths.listed.append(f"{method} {path.replace(':path}', '}')}")
        endpoint = _guarded(path, handler, keys if needs_key else None, printer)
        application.add_route(path, endpoint, methods=[method])
        if "{" not in path:
            application.short_ways[method, path] = endpoint

    for path in ("/v1/embeddings", "/embeddings", "/embedding"):
        add(path, "POST", paths.native if path != "/v1/embeddings" else paths.embeddings)
    for path, handler, printer in RerankPaths(Reranking(pipeline.stages), bodies):
        add(path, "POST", handler, printer=printer)
    add("/tokenize", "POST", paths.tokenize)
    add("/detokenize", "POST", paths.detokenize)
    for path in ("/v1/models", "/models"):
        add(path, "GET", paths.models)
        # An alias may have slashes in it, as the hub's names of models do.
        add(path + "/{model:path}", "GET", paths.model)
    add("/info", "GET", paths.info)
    add("/health", "GET", paths.health, needs_key=False)
    application.add_exception_handler(HTTPException, _on_http_exception)
    application.add_exception_handler(Exception, _on_exception)
    return application


class _Application(FastAPI):
    """Knows a short way to the plain paths.

    FastAPI's middleware and the search for a route take about a sixth of the CPU time that a short text costs here, and do
    nothing for an endpoint that turns every outcome into an answer itself.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.short_ways: dict[tuple[str, str], Callable[[Request], Awaitable[Response]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer over ASGI. Below a path of its own (``root_path``), FastAPI finds the route."""
        if scope["type"] == "http" and not scope.get("root_path"):
            endpoint = self.short_ways.get((scope["method"], scope["path"]))
            if endpoint is not None:
                response = await endpoint(Request(scope, receive))
                await response(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


class _Paths:
    def __init__(self, pipeline: Pipeline, check_ready: Callable[[], Awaitable[None]], bodies: BodyReader) -> None:
        self._pipeline = pipeline
        self._bodies = bodies
        self._limits = pipeline.config.limits
        self._check_ready = check_ready
        self._started_s = int(time.time())
        self.listed: list[str] = []
        """Every path with its method, as ``GET /info`` names them."""

    async def embeddings(self, request: Request, context: RequestContext) -> Response:
        body = await self._bodies.read(request)
        if body.get("content") is not None and body.get("input") is None:
            return await self._embed(request, body, context, native=True)
        return await self._embed(request, body, context, native=False)

    async def native(self, request: Request, context: RequestContext) -> Response:
        body = await self._bodies.read(request)
        # Real clients post OpenAI's body here, and only OpenAI's body names a model; OpenAI's shape has no token matrices.
        openai_shaped = body.get("model") is not None and body.get("pooling") != "none" and body.get("content") is None
        return await self._embed(request, body, context, native=not openai_shaped)

    async def _embed(self, request: Request, body: dict[str, Any], context: RequestContext, native: bool) -> Response:
        parse = llama_server.parse_native if native else openai.parse_embeddings
        call, unknown = parse(body, request.headers, self._limits)
        self._check_key(call, context.key)
        answer = await self._pipeline.embed(call, context.request_id, request.headers.get("traceparent"))
        headers = {**answer_headers(answer), **ignored_fields_header(unknown)}
        if call.options.encoding is Encoding.RAW:
            content, more = format_npy(answer, call.options.output_type)
            return Response(content, headers={**headers, **more}, media_type=openai.OCTET_STREAM)
        if native:
            content = llama_server.format_native(answer, call.options.encoding is Encoding.BASE64)
        else:
            content = openai.format_embeddings(answer, call.options)
        return Response(content, headers=headers, media_type="application/json")

    async def tokenize(self, request: Request, context: RequestContext) -> Response:
        call, unknown = llama_server.parse_tokenize(await self._bodies.read(request), request.headers)
        permitted_model(context.key, self._pipeline.router, call.model)
        shown = await self._pipeline.tokens(call, context.request_id, request.headers.get("traceparent"))
        content = await _printed(len(shown.ids), llama_server.format_tokenize, shown, call.with_pieces)
        return Response(content, headers=ignored_fields_header(unknown), media_type="application/json")

    async def detokenize(self, request: Request, context: RequestContext) -> Response:
        call, unknown = llama_server.parse_detokenize(await self._bodies.read(request), request.headers)
        permitted_model(context.key, self._pipeline.router, call.model)
        text = await self._pipeline.text(call, context.request_id, request.headers.get("traceparent"))
        content = await _printed(len(text), llama_server.format_detokenize, text)
        return Response(content, headers=ignored_fields_header(unknown), media_type="application/json")

    async def models(self, request: Request, context: RequestContext) -> Response:
        return Response(format_models(self._pipeline, self._started_s, context.key), media_type="application/json")

    async def model(self, request: Request, context: RequestContext) -> Response:
        name = permitted_model(context.key, self._pipeline.router, request.path_params["model"])
        return Response(format_model(self._pipeline, name, self._started_s), media_type="application/json")

    async def info(self, request: Request, context: RequestContext) -> Response:
        content = format_info(self._pipeline, self._started_s, self.listed, context.key)
        return Response(content, media_type="application/json")

    async def health(self, request: Request, context: RequestContext) -> Response:
        await self._check_ready()
        return Response(b'{"status":"ok"}', media_type="application/json")

    def _check_key(self, call: EmbedCall, key: ApiKey | None) -> None:
        permitted_model(key, self._pipeline.router, call.model)
        check_items(key, len(call.inputs), call.param)


async def _printed(size: int, printer: Callable[..., bytes], *arguments: object) -> bytes:
    """Print an answer, on a thread where it is long."""
    return printer(*arguments) if size <= _PRINTED_HERE else await asyncio.to_thread(printer, *arguments)


def _guarded(
    path: str, handler: Handler, keys: KeyRing | None, printer: PrintError
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler so that every outcome is an answer in the shape of its dialect, and is counted."""

    async def endpoint(request: Request) -> Response:
        started_s = time.monotonic()
        context = RequestContext(request.headers.get("x-request-id") or uuid.uuid4().hex, None, printer)
        # What the server cancels, since the client has gone or the replica ends, is counted too.
        status, headers = CLIENT_CLOSED_REQUEST, Headers()
        try:
            response = await answer(request, context)
            status, headers = response.status_code, response.headers
        finally:
            count_answer(
                path,
                status,
                context.key.id if context.key is not None else "",
                time.monotonic() - started_s,
                headers.get("x-poolhouse-model", ""),
                headers.get("x-poolhouse-pooling", ""),
            )
        return response

    async def answer(request: Request, context: RequestContext) -> Response:
        try:
            context.key = keys.authenticate(request.headers) if keys is not None else None
            CLIENT.set(context.key.id if context.key is not None else "")
            return await while_connected(request, lambda connected: handler(connected, context))
        except PoolhouseError as error:
            if error.status >= 500:
                logger.warning("request %s%s: %s", context.request_id, _of(context.key), error.message)
            REFUSALS.labels(path, error.code).inc()
            return error_response(error, context.request_id, context.printer)
        except ClientDisconnect:
            REFUSALS.labels(path, "client_disconnected").inc()
            return error_response(InvalidRequest("the body ended early"), context.request_id, context.printer)
        except Exception:
            # A fault of ours: it is logged whole, and the client gets an answer in place of a closed connection.
            logger.exception("request %s%s failed", context.request_id, _of(context.key))
            REFUSALS.labels(path, "internal_error").inc()
            return Response(unexpected_body(context.request_id), 500, media_type="application/json")

    return endpoint


def _of(key: ApiKey | None) -> str:
    return "" if key is None else f" of the key {key.id!r}"


async def _on_http_exception(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    known: PoolhouseError
    if status == 405:
        allowed = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
        known = MethodNotAllowed(
            f"{request.url.path} does not take {request.method}; it takes {allowed or 'another method'}"
        )
    elif status == 404:
        known = NotFound(f"there is no path {request.url.path[:200]}; GET /info lists those that exist")
    else:
        known = InvalidRequest(f"the request cannot be read: {error}")
    response = error_response(known, request.headers.get("x-request-id", ""))
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response


async def _on_exception(request: Request, error: Exception) -> Response:
    request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
    logger.error("request %s failed", request_id, exc_info=error)
    return Response(unexpected_body(request_id), 500, media_type="application/json")

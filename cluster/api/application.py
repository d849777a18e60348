"""The HTTP application: which dialect answers on which path.

The paths that carry work are plain Starlette endpoints: the body is parsed once, by the dialect, and the answer is bytes
already. FastAPI holds them together and serves the description of the API.
"""

from __future__ import annotations

import logging
import time
import uuid
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cluster.answers import check_printed
from cluster.api import llama_server, openai
from cluster.api.connection import CLIENT_CLOSED_REQUEST, while_connected
from cluster.api.errors import unexpected_body
from cluster.api.headers import answer_headers, ignored_fields_header
from cluster.api.keys import ApiKey, KeyRing, check_items, permitted_model
from cluster.api.listing import format_info, format_model, format_models
from cluster.api.matrix import format_npy
from cluster.api.parsing import Parse
from cluster.api.requests import BodyReader, Handler, PrintError, RequestContext, error_response, print_error
from cluster.api.rerank import RerankPaths
from cluster.api.responses import Answers, Piece, gathered
from cluster.attempts import ARRIVED_S, CLIENT
from cluster.calls import EmbedAnswer, EmbedCall, Encoding
from cluster.errors import InvalidRequest, MethodNotAllowed, NotFound, PoolhouseError
from cluster.offload import Offload
from cluster.pipeline import Pipeline
from cluster.quarantine import client_of
from cluster.reranking import Reranking
from cluster.telemetry.metrics import REFUSALS, count_answer

logger = logging.getLogger("poolhouse")

# CPU time of what stands around one item's numbers, and of one token id, piece or character that is only shown.
_FORMATTED_ITEM_S = 2e-6
_SHOWN_S = 2.5e-7

# What is printed of one token id, and of one with its piece.
_ID_BYTES, _PIECE_BYTES = 7, 32


def create_application(pipeline: Pipeline, check_ready: Callable[[], Awaitable[None]]) -> FastAPI:
    """Build the ASGI application.

    Args:
        check_ready: raises NotReady while some awake part cannot answer.
    """
    bodies = BodyReader(pipeline.config.limits)
    answers = Answers(pipeline.config.limits)
    offload = Offload()
    weakref.finalize(bodies, offload.close)
    paths = _Paths(pipeline, check_ready, bodies, answers, offload)
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
    for path, handler, printer in RerankPaths(Reranking(pipeline.stages), bodies, answers, offload):
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
    def __init__(
        self,
        pipeline: Pipeline,
        check_ready: Callable[[], Awaitable[None]],
        bodies: BodyReader,
        answers: Answers,
        offload: Offload,
    ) -> None:
        self._pipeline = pipeline
        self._bodies = bodies
        self._answers = answers
        self._offload = offload
        self._check_ready = check_ready
        self._started_s = int(time.time())
        self.listed: list[str] = []
        """Every path with its method, as ``GET /info`` names them."""

    async def embeddings(self, request: Request, context: RequestContext) -> Response:
        return await self._embed(request, context, llama_server.parse_v1_embeddings)

    async def native(self, request: Request, context: RequestContext) -> Response:
        return await self._embed(request, context, llama_server.parse_embedding)

    async def _embed(
        self, request: Request, context: RequestContext, parse: Parse[tuple[bool, EmbedCall, list[str]]]
    ) -> Response:
        native, call, unknown = await self._bodies.parse(request, parse)
        self._check_key(call, context.key)
        room = self._answers.room()
        try:
            trace = request.headers.get("traceparent")
            answer = await self._pipeline.embed(call, context.request_id, trace, room.take)
            cost_s = _FORMATTED_ITEM_S * len(answer.pieces)
            pieces, headers = await self._offload.run(cost_s, _format, answer, call, native)
            media_type = openai.OCTET_STREAM if call.options.encoding is Encoding.RAW else "application/json"
            return room.respond(pieces, {**headers, **ignored_fields_header(unknown)}, media_type)
        except BaseException:
            room.close()
            raise

    async def tokenize(self, request: Request, context: RequestContext) -> Response:
        call, unknown = await self._bodies.parse(request, llama_server.parse_tokenize)
        permitted_model(context.key, self._pipeline.router, call.model)
        shown = await self._pipeline.tokens(call, context.request_id, request.headers.get("traceparent"))
        form = partial(llama_server.format_tokenize, shown, call.with_pieces)
        size_bytes = len(shown.ids) * (_PIECE_BYTES if call.with_pieces else _ID_BYTES)
        return await self._show(len(shown.ids), size_bytes, unknown, form, "content")

    async def detokenize(self, request: Request, context: RequestContext) -> Response:
        call, unknown = await self._bodies.parse(request, llama_server.parse_detokenize)
        permitted_model(context.key, self._pipeline.router, call.model)
        text = await self._pipeline.text(call, context.request_id, request.headers.get("traceparent"))
        return await self._show(len(text), len(text), unknown, partial(llama_server.format_detokenize, text), "tokens")

    async def _show(
        self, size: int, size_bytes: int, unknown: list[str], form: Callable[[], bytes], param: str
    ) -> Response:
        """Print so many token ids, pieces or characters, and count the answer until it has been read.

        Args:
            size_bytes: of what is printed, about.
        """
        limits = self._pipeline.config.limits
        check_printed(size_bytes, limits, param)
        room = self._answers.room()
        try:
            room.take(size_bytes)
            content = await self._offload.run(_SHOWN_S * size, form)
            check_printed(len(content), limits, param)
            room.take(len(content))
            return room.respond([content], ignored_fields_header(unknown), "application/json")
        except BaseException:
            room.close()
            raise

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


def _format(answer: EmbedAnswer, call: EmbedCall, native: bool) -> tuple[list[Piece], dict[str, str]]:
    headers = answer_headers(answer)
    if call.options.encoding is Encoding.RAW:
        pieces, more = format_npy(answer, call.options.output_type)
        headers = {**headers, **more}
    elif native:
        pieces = llama_server.format_native(answer, call.options.encoding is Encoding.BASE64)
    else:
        pieces = openai.format_embeddings(answer, call.options)
    # Here, and not on the event loop, since there may be very many.
    answer.pieces.clear()
    return gathered(pieces), headers


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
            ARRIVED_S.set(None)
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
            address = request.client.host if request.client is not None else None
            CLIENT.set(client_of(context.key.id if context.key is not None else None, address))
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

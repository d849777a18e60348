from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.api import jina, openai, vllm
from cluster.api.application import create_application
from cluster.api.errors import error_body
from cluster.client import AsyncClient, Client, Retries
from cluster.config import Limits, PoolhouseConfig
from cluster.errors import PoolhouseError
from tests.support.pipelines import fake_config, local_pipeline

Fault = httpx.Response | Exception
Hook = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class Time:
    """A clock that only sleeping moves."""

    now_s: float = 1000.0
    slept_s: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    def retries(self, **options: Any) -> Retries:
        return Retries(**{"sleep": self.sleep, "uniform": lambda: 0.5, "clock": lambda: self.now_s, **options})


@dataclass
class Double:
    """Stands in for a server that fails on command: each request first takes a fault, if there is one left.

    It reads bodies as the server does, so it takes no other, and holds that no field is sent in vain. The vector of the text
    ``"17"`` is ``[17, 17]``, of two tokens.
    """

    faults: deque[Fault] = field(default_factory=deque)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    before: Hook | None = None

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        self.requests.append(request)
        self.bodies.append(body)
        if self.before is not None:
            await self.before(body)
        if request.url.path in PARSERS:
            try:
                ignored = PARSERS[request.url.path](body, request.headers)
            except PoolhouseError as error:
                status, content, headers = error_body(error)
                return httpx.Response(status, content=content, headers=headers)
            assert ignored == []
        if self.faults:
            fault = self.faults.popleft()
            if isinstance(fault, Exception):
                raise fault
            return fault
        return ANSWERS.get(request.url.path, _embeddings)(body)

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)

    def client(self, time: Time | None = None, **options: Any) -> Client:
        return Client(transport=self.transport, retries=(time or Time()).retries(), **options)

    def async_client(self, time: Time | None = None, **options: Any) -> AsyncClient:
        return AsyncClient(transport=self.transport, retries=(time or Time()).retries(), **options)


def _embeddings(body: dict[str, Any]) -> httpx.Response:
    data = [
        {
            "index": index,
            "embedding": base64.b64encode(np.full(2, float(text), "<f4").tobytes()).decode(),
            "shape": [2],
            "tokens": 2,
        }
        for index, text in enumerate(body["input"])
    ]
    return httpx.Response(200, json={"data": data})


def _rerank(body: dict[str, Any]) -> httpx.Response:
    """The score of a document is its number, modulo 7."""
    results = [
        {"index": index, "relevance_score": float(text) % 7}
        for index, text in sorted(enumerate(body["documents"]), key=lambda pair: -(float(pair[1]) % 7))
    ]
    tail = {"score_type": "logit", "model": "m", "usage": {"total_tokens": 3 * len(results)}}
    return httpx.Response(200, json={"results": results, **tail})


def _classify(body: dict[str, Any]) -> httpx.Response:
    items = body.get("pairs") or body["input"]
    data = [{"index": index, "label": f"label of {item}", "probs": [0.25, 0.75]} for index, item in enumerate(items)]
    return httpx.Response(200, json={"data": data, "model": "m"})


PARSERS: dict[str, Callable[[dict[str, Any], Mapping[str, str]], list[str]]] = {
    "/v1/embeddings": lambda body, headers: openai.parse_embeddings(body, headers, Limits())[1],
    "/v1/rerank": lambda body, headers: jina.parse_rerank(body, headers, Limits()).ignored,
    "/v1/classify": lambda body, headers: vllm.parse_classify(body, headers, Limits()).ignored,
}

ANSWERS: dict[str, Callable[[dict[str, Any]], httpx.Response]] = {
    "/v1/rerank": _rerank,
    "/v1/classify": _classify,
    "/health": lambda body: httpx.Response(200, json={}),
}


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def time() -> Time:
    return Time()


@dataclass
class Recorder(httpx.AsyncBaseTransport):
    """Passes requests on to the application in this process and keeps what went over the wire."""

    inner: httpx.AsyncBaseTransport
    bodies: list[dict[str, Any]] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.content:
            self.bodies.append(json.loads(request.content))
        answer = await self.inner.handle_async_request(request)
        self.answers.append(answer)
        return answer


@pytest.fixture
def open_client() -> Iterator[Callable[..., Client]]:
    """Opens clients of the real application over the fake engine; ``config`` is the server's, the rest the client's."""
    closers: list[Callable[[], Any]] = []

    def opened(config: PoolhouseConfig | None = None, **options: Any) -> Client:
        context = local_pipeline(config or fake_config())
        local = context.__enter__()
        closers.append(lambda: context.__exit__(None, None, None))
        application = create_application(local.pipeline, local.check_ready)
        options.setdefault("transport", Recorder(httpx.ASGITransport(app=application)))
        client = Client("http://poolhouse", retries=Retries(count=0), **options)
        closers.append(client.close)
        return client

    yield opened
    for close in reversed(closers):
        close()


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, Client]]:
    with local_pipeline(fake_config()) as local:
        application = create_application(local.pipeline, local.check_ready)
        transport = Recorder(httpx.ASGITransport(app=application))
        with Client("http://poolhouse", retries=Retries(count=0), transport=transport, request_items=4) as client:
            yield transport, client


@pytest.fixture
async def async_client() -> AsyncIterator[AsyncClient]:
    with local_pipeline(fake_config()) as local:
        application = create_application(local.pipeline, local.check_ready)
        transport = httpx.ASGITransport(app=application)
        async with AsyncClient(
            "http://poolhouse", retries=Retries(count=0), transport=transport, request_items=4
        ) as opened:
            yield opened

"""A small HTTP server in a thread that answers as an embedding server would, and counts what it is sent."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.servers import served

TOKENS_PER_WORD = 1


@dataclass
class Double:
    """What the double was sent, and how it answers.

    Attributes:
        statuses: of the first answers; 200 once they are used up.
        header: whether tokens are told in Poolhouse's header rather than in the body.
        close_every: end the connection with every so many answers; 0: never.
    """

    statuses: list[int] = field(default_factory=list)
    header: bool = False
    says_tokens: bool = True
    close_every: int = 0
    wait: threading.Event | None = None
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.wait is not None:
            await asyncio.to_thread(self.wait.wait, 30)
        if self.statuses:
            return JSONResponse({"error": "no"}, self.statuses.pop(0))
        texts = body["documents"] if "documents" in body else body["input"]
        texts = [texts] if isinstance(texts, str) else texts
        tokens = sum(len(text.split()) for text in texts) * TOKENS_PER_WORD
        headers = {"x-poolhouse-tokens": str(tokens)} if self.header else {}
        if self.close_every and len(self.bodies) % self.close_every == 0:
            headers["connection"] = "close"
        usage = {"usage": {"prompt_tokens": tokens}} if self.says_tokens and not self.header else {}
        return JSONResponse({"data": [{"embedding": [0.5] * 40} for _ in texts], **usage}, headers=headers)

    async def models(self, request: Request) -> Response:
        """List one model."""
        return JSONResponse({"data": [{"id": "double"}]})


@contextmanager
def double(**options: Any) -> Iterator[Double]:
    """Run a double on a free port."""
    made = Double(**options)
    routes = [
        Route("/v1/embeddings", made.answer, methods=["POST"]),
        Route("/v1/rerank", made.answer, methods=["POST"]),
        Route("/v1/models", made.models),
    ]
    with served(Starlette(routes=routes)) as made.url:
        yield made


def sent_texts(made: Double) -> list[str]:
    """Return every text that the double was sent."""
    texts: list[str] = []
    for body in made.bodies:
        given = body["documents"] if "documents" in body else body["input"]
        texts += [given] if isinstance(given, str) else given
    return texts


def fields_of(body: bytes) -> dict[str, Any]:
    """Read a request's body."""
    read: dict[str, Any] = json.loads(body)
    return read

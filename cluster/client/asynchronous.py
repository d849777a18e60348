"""The client for asyncio programs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import httpx
import numpy as np

from cluster.client.answers import Classification, EmbedBatch, Ranking, Token
from cluster.client.connection import Connection, Message
from cluster.client.decoding import read_member, read_object, read_tokens
from cluster.client.embedding import EmbedOptions, MatrixPooling, Tally, VectorPooling, embedding, gathering
from cluster.client.operations import OnErrorName, Operation, RequestSize, body_of, ids_of
from cluster.client.packing import Job, TextInput, check_iterable
from cluster.client.retries import Deadline, Retries
from cluster.client.scoring import classification, classifying, ranking, reranking
from cluster.client.settling import settle
from cluster.errors import InvalidRequest
from cluster.types import Float32, Int32

Part = TypeVar("Part")
Texts = Iterable[TextInput] | AsyncIterable[TextInput]

# Answers that wait for an earlier one. Twice the requests in flight keeps the server busy behind a slow request.
AHEAD = 2


class AsyncClient:
    """Talks to a Poolhouse server.

    Args:
        base_url: ``http://HOST:PORT``, with the route's prefix if it has one; a closing ``/v1`` is taken off.
        api_key: sent as ``Authorization: Bearer``.
        in_flight: requests that the server holds at the same time.
        request_items, request_bytes: size of one request; whichever is reached first. Bytes are the items' JSON.
        retries: what is repeated, how often and after which wait.
        transport: of httpx, for a proxy, certificates of one's own, or tests.

    Raises:
        InvalidRequest: an argument is not usable.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        in_flight: int = 4,
        request_items: int = 512,
        request_bytes: int = 65_536,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if in_flight < 1:
            raise InvalidRequest(f"in_flight is {in_flight}; give at least 1", "in_flight")
        self.in_flight = in_flight
        self.size = RequestSize(request_items, request_bytes)
        self.size.check()
        self._connection = Connection(base_url, api_key, in_flight, retries or Retries(), transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()

    @overload
    async def embed(
        self, texts: Texts, *, pooling: MatrixPooling, **options: Unpack[EmbedOptions]
    ) -> list[Float32 | None]: ...
    @overload
    async def embed(
        self, texts: Texts, *, pooling: VectorPooling | None = None, **options: Unpack[EmbedOptions]
    ) -> Float32: ...
    @overload
    async def embed(
        self, texts: Texts, *, pooling: str | None, **options: Unpack[EmbedOptions]
    ) -> Float32 | list[Float32 | None]: ...
    async def embed(
        self, texts: Texts, *, pooling: str | None = None, **options: Unpack[EmbedOptions]
    ) -> Float32 | list[Float32 | None]:
        """Return the vectors of all texts, in their order.

        Args:
            texts: any iterable of texts or lists of token ids. It is read in the event loop; one that blocks should be an
                asynchronous iterable.
            pooling: a pooling type that the model answers; None is the model's default.
            options: see ``EmbedOptions``.

        Returns:
            float32 ``[n, dimensions]``, with rows of NaN for skipped items. For pooling type none, a list of float32
            ``[n_tokens, dimensions]``, with None for skipped items.

        Raises:
            InvalidRequest: an item or an option is bad; ``extra["items"]`` has the indices of bad items.
            DeadlineExceeded: ``timeout_s`` passed.
            ServerUnreachable: no answer came.
            PoolhouseError: the error that the server answered.
        """
        gathered = gathering(texts, pooling, options)
        async with aclosing(self.embed_batches(texts, pooling=pooling, **options)) as batches:
            async for batch in batches:
                gathered.add(batch)
        return gathered.result()

    def embed_batches(
        self, texts: Texts, *, pooling: str | None = None, **options: Unpack[EmbedOptions]
    ) -> AsyncGenerator[EmbedBatch, None]:
        """Yield the vectors of one request after the other, in order and with flat memory; otherwise as ``embed``.

        At most twice ``in_flight`` requests are held, and ``texts`` is read no further than that.
        """
        check_iterable(texts, "texts", "text")
        return self._batches(embedding(pooling, options, self.size), texts, Tally(options.get("progress")))

    def embed_iter(
        self, texts: Texts, *, pooling: str | None = None, **options: Unpack[EmbedOptions]
    ) -> AsyncGenerator[tuple[int, Float32 | None], None]:
        """Yield (index, vector) in order and with flat memory; None for skipped items. Otherwise as ``embed_batches``."""
        return _pairs(self.embed_batches(texts, pooling=pooling, **options))

    async def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_n: int | None = None,
        model: str | None = None,
        instruction: str | None = None,
        strategy: str | None = None,
        raw_scores: bool | None = None,
        return_documents: bool = False,
        timeout_s: float | None = None,
        on_error: OnErrorName = "raise",
    ) -> Ranking:
        """Return the documents from the best to the worst.

        Args:
            top_n: keep so many of the best.
            strategy: how the server scores (a cross-encoder, or late interaction); None lets it choose by the model.
            raw_scores: leave out the activation.

        Raises:
            PoolhouseError: as ``embed``.
        """
        operation = reranking(
            query,
            top_n=top_n,
            model=model,
            instruction=instruction,
            strategy=strategy,
            raw_scores=raw_scores,
            timeout_s=timeout_s,
            on_error=on_error,
            size=self.size,
        )
        check_iterable(documents, "documents", "document")
        kept = list(documents) if return_documents else None
        parts = [part async for part in self._in_order(operation, documents if kept is None else kept)]
        return ranking(parts, kept, top_n)

    async def classify(
        self,
        texts: Iterable[str] | Iterable[tuple[str, str]],
        *,
        pairs: bool = False,
        model: str | None = None,
        raw_scores: bool | None = None,
        timeout_s: float | None = None,
        on_error: OnErrorName = "raise",
    ) -> Classification:
        """Return the label of each text, or of each pair of texts where ``pairs`` is set.

        Raises:
            PoolhouseError: as ``embed``.
        """
        operation = classifying(
            pairs=pairs, model=model, raw_scores=raw_scores, timeout_s=timeout_s, on_error=on_error, size=self.size
        )
        check_iterable(texts, "texts", "pair" if pairs else "text")
        return classification([part async for part in self._in_order(operation, texts)])

    async def tokenize(
        self, text: str, *, model: str | None = None, add_special: bool = False, parse_special: bool = True
    ) -> Int32:
        """Return the token ids of a text, int32 ``[n_tokens]``."""
        response = await self._post(
            "/tokenize", body_of(content=text, model=model, add_special=add_special, parse_special=parse_special)
        )
        return np.array(read_member(response, "tokens", list), dtype=np.int32)

    async def tokens(
        self, text: str, *, model: str | None = None, add_special: bool = False, parse_special: bool = True
    ) -> list[Token]:
        """Return the tokens of a text, each with its piece of the text."""
        body = body_of(
            content=text, model=model, add_special=add_special, parse_special=parse_special, with_pieces=True
        )
        return read_tokens(await self._post("/tokenize", body))

    async def detokenize(self, tokens: Sequence[int] | Int32, *, model: str | None = None) -> str:
        """Return the text of token ids."""
        return read_member(await self._post("/detokenize", body_of(tokens=ids_of(tokens), model=model)), "content", str)

    async def models(self) -> list[dict[str, Any]]:
        """Return what the server says of each of its models: id, pooling types, dimensions, longest input."""
        return list(read_member(await self._get("/v1/models"), "data", list))

    async def info(self) -> dict[str, Any]:
        """Return the server's version, limits and models."""
        return read_object(await self._get("/info"))

    async def health(self) -> dict[str, Any]:
        """Return ``{"status": "ok"}``; asks once.

        Raises:
            NotReady: a part of the server is still starting.
            ServerUnreachable: no answer came.
        """
        return read_object(await self._get("/health", repeatable=False))

    def deadline(self, timeout_s: float | None) -> Deadline:
        """Return the deadline of a call that begins now."""
        return Deadline(timeout_s, self._connection.retries.clock)

    async def perform(self, operation: Operation[Part], job: Job, deadline: Deadline) -> Part:
        """Carry one job of an operation to its end."""
        return operation.read(job, await settle(self._connection, operation.form, job, deadline, operation.on_error))

    async def _batches(
        self, operation: Operation[EmbedBatch], texts: Texts, tally: Tally
    ) -> AsyncGenerator[EmbedBatch, None]:
        async with aclosing(self._in_order(operation, texts)) as batches:
            async for batch in batches:
                yield tally.count(batch)

    async def _in_order(
        self, operation: Operation[Part], items: Iterable[object] | AsyncIterable[object]
    ) -> AsyncGenerator[Part, None]:
        deadline = self.deadline(operation.timeout_s)
        window: deque[asyncio.Task[Part]] = deque()
        try:
            async with aclosing(operation.packer().pack_async(items)) as jobs:
                async for job in jobs:
                    window.append(asyncio.create_task(self.perform(operation, job, deadline)))
                    while window and (len(window) >= AHEAD * self.in_flight or window[0].done()):
                        yield await window[0]
                        window.popleft()
            while window:
                yield await window[0]
                window.popleft()
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)

    async def _post(self, path: str, members: bytes) -> httpx.Response:
        return await self._connection.send(Message("POST", path, members), self.deadline(None))

    async def _get(self, path: str, *, repeatable: bool = True) -> httpx.Response:
        return await self._connection.send(Message("GET", path, repeatable=repeatable), self.deadline(None))


async def _pairs(batches: AsyncGenerator[EmbedBatch, None]) -> AsyncGenerator[tuple[int, Float32 | None], None]:
    async with aclosing(batches):
        async for batch in batches:
            for pair in batch:
                yield pair

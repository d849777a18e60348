"""The client for programs without asyncio."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import httpx

from cluster.client.answers import Classification, EmbedBatch, Ranking, Token
from cluster.client.asynchronous import AHEAD, AsyncClient
from cluster.client.embedding import EmbedOptions, MatrixPooling, Tally, VectorPooling, embedding, gathering
from cluster.client.operations import OnErrorName, Operation
from cluster.client.packing import TextInput, check_iterable
from cluster.client.portal import Portal
from cluster.client.retries import Retries
from cluster.client.scoring import classification, classifying, ranking, reranking
from cluster.types import Float32, Int32

Part = TypeVar("Part")


class Client:
    """Talks to a Poolhouse server; methods block until their answer is there.

    Iterables are read in the caller's thread. Several threads may use one client; a process that was forked needs its own.
    Arguments, results and errors are those of ``AsyncClient``.
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
        self._client = AsyncClient(
            base_url,
            api_key=api_key,
            in_flight=in_flight,
            request_items=request_items,
            request_bytes=request_bytes,
            retries=retries,
            transport=transport,
        )
        self._portal = Portal(self, self._client.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what is in flight and close all connections."""
        self._portal.close()

    @overload
    def embed(
        self, texts: Iterable[TextInput], *, pooling: MatrixPooling, **options: Unpack[EmbedOptions]
    ) -> list[Float32 | None]: ...
    @overload
    def embed(
        self, texts: Iterable[TextInput], *, pooling: VectorPooling | None = None, **options: Unpack[EmbedOptions]
    ) -> Float32: ...
    @overload
    def embed(
        self, texts: Iterable[TextInput], *, pooling: str | None, **options: Unpack[EmbedOptions]
    ) -> Float32 | list[Float32 | None]: ...
    def embed(
        self, texts: Iterable[TextInput], *, pooling: str | None = None, **options: Unpack[EmbedOptions]
    ) -> Float32 | list[Float32 | None]:
        """Return float32 ``[n, dimensions]``, or for pooling type none a list of ``[n_tokens, dimensions]``, in order.

        Skipped items are rows of NaN, or None. See ``AsyncClient.embed`` and ``EmbedOptions``.
        """
        gathered = gathering(texts, pooling, options)
        for batch in self.embed_batches(texts, pooling=pooling, **options):
            gathered.add(batch)
        return gathered.result()

    def embed_batches(
        self, texts: Iterable[TextInput], *, pooling: str | None = None, **options: Unpack[EmbedOptions]
    ) -> Generator[EmbedBatch, None, None]:
        """Yield the vectors of one request after the other, in order and with flat memory.

        At most twice ``in_flight`` requests are held, and ``texts`` is read no further than that.
        """
        check_iterable(texts, "texts", "text")
        operation, tally = embedding(pooling, options, self._client.size), Tally(options.get("progress"))
        return (tally.count(batch) for batch in self._in_order(operation, texts))

    def embed_iter(
        self, texts: Iterable[TextInput], *, pooling: str | None = None, **options: Unpack[EmbedOptions]
    ) -> Generator[tuple[int, Float32 | None], None, None]:
        """Yield (index, vector) in order and with flat memory; None for skipped items."""
        batches = self.embed_batches(texts, pooling=pooling, **options)
        return (pair for batch in batches for pair in batch)

    def rerank(
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
        """Return the documents from the best to the worst; see ``AsyncClient.rerank``."""
        operation = reranking(
            query,
            top_n=top_n,
            model=model,
            instruction=instruction,
            strategy=strategy,
            raw_scores=raw_scores,
            timeout_s=timeout_s,
            on_error=on_error,
            size=self._client.size,
        )
        check_iterable(documents, "documents", "document")
        kept = list(documents) if return_documents else None
        return ranking(list(self._in_order(operation, documents if kept is None else kept)), kept, top_n)

    def classify(
        self,
        texts: Iterable[str] | Iterable[tuple[str, str]],
        *,
        pairs: bool = False,
        model: str | None = None,
        raw_scores: bool | None = None,
        timeout_s: float | None = None,
        on_error: OnErrorName = "raise",
    ) -> Classification:
        """Return the label of each text, or of each pair of texts where ``pairs`` is set."""
        operation = classifying(
            pairs=pairs,
            model=model,
            raw_scores=raw_scores,
            timeout_s=timeout_s,
            on_error=on_error,
            size=self._client.size,
        )
        check_iterable(texts, "texts", "pair" if pairs else "text")
        return classification(list(self._in_order(operation, texts)))

    def tokenize(
        self, text: str, *, model: str | None = None, add_special: bool = False, parse_special: bool = True
    ) -> Int32:
        """Return the token ids of a text, int32 ``[n_tokens]``."""
        return self._portal.run(
            self._client.tokenize(text, model=model, add_special=add_special, parse_special=parse_special)
        )

    def tokens(
        self, text: str, *, model: str | None = None, add_special: bool = False, parse_special: bool = True
    ) -> list[Token]:
        """Return the tokens of a text, each with its piece of the text."""
        return self._portal.run(
            self._client.tokens(text, model=model, add_special=add_special, parse_special=parse_special)
        )

    def detokenize(self, tokens: Sequence[int] | Int32, *, model: str | None = None) -> str:
        """Return the text of token ids."""
        return self._portal.run(self._client.detokenize(tokens, model=model))

    def models(self) -> list[dict[str, Any]]:
        """Return what the server says of each of its models: id, pooling types, dimensions, longest input."""
        return self._portal.run(self._client.models())

    def info(self) -> dict[str, Any]:
        """Return the server's version, limits and models."""
        return self._portal.run(self._client.info())

    def health(self) -> dict[str, Any]:
        """Return ``{"status": "ok"}``, or raise NotReady or ServerUnreachable; asks once."""
        return self._portal.run(self._client.health())

    def _in_order(self, operation: Operation[Part], items: Iterable[object]) -> Generator[Part, None, None]:
        deadline = self._client.deadline(operation.timeout_s)
        window: deque[Future[Part]] = deque()
        try:
            for job in operation.packer().pack(items):
                window.append(self._portal.submit(self._client.perform(operation, job, deadline)))
                while window and (len(window) >= AHEAD * self._client.in_flight or window[0].done()):
                    yield self._portal.result_of(window[0])
                    window.popleft()
            while window:
                yield self._portal.result_of(window[0])
                window.popleft()
        finally:
            for future in window:
                future.cancel()

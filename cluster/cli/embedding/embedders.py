"""Who embeds: a server, asked through the client, or an encoder in this process, without Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, Self

from cluster.assembly import load_encoder, load_tokenizer
from cluster.batching.encoder import Encoder
from cluster.calls import AnswerOptions, Input
from cluster.client import Client, EmbedBatch
from cluster.config import PoolhouseConfig, Truncate
from cluster.errors import InvalidRequest, PoolhouseError
from cluster.pooler import finish_rows
from cluster.routing import Router
from cluster.texts import TextBatch, TextOptions
from cluster.tokenization import TokenizedModel, Tokenizer
from cluster.types import Float32, Lane, PoolingType, RequestFacts, TokenBatch, VectorBatch

_WINDOW_TEXTS = 256
_WINDOW_CHARACTERS = 65_536
# Token vectors take some kilobytes for each token.
_MATRIX_SHARE = 8
# One in the encoder, one behind it, and one whose vectors are being written.
_WINDOWS_AHEAD = 3
_NOT_NORMALIZED, _EUCLIDEAN = -1.0, 2.0


@dataclass(frozen=True, slots=True)
class EmbedSettings:
    """What the vectors depend on beside the texts. None is the model's default."""

    pooling: PoolingType | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    input_type: str | None = None
    truncate: Truncate | None = None


class Embedder(Protocol):
    """Yields vectors for texts; a bad text is left out and named in ``EmbedBatch.errors``."""

    def batches(self, texts: Iterable[str]) -> Generator[EmbedBatch, None, None]:
        """Yield the vectors of all texts in order, reading ``texts`` not far ahead.

        Raises:
            PoolhouseError: something is wrong that is not one text's fault.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class ServerEmbedder:
    """Asks a server; several requests are in flight."""

    def __init__(self, client: Client, model: str | None, settings: EmbedSettings) -> None:
        self._client = client
        self._model = model
        self._settings = settings

    def batches(self, texts: Iterable[str]) -> Generator[EmbedBatch, None, None]:
        """Yield one batch for each request; see ``Embedder``."""
        settings = self._settings
        return self._client.embed_batches(
            texts,
            pooling=settings.pooling,
            model=self._model,
            dimensions=settings.dimensions,
            normalize=settings.normalize,
            input_type=settings.input_type,
            truncate=settings.truncate,
            lane=Lane.BULK,
            on_error="skip",
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class LocalEmbedder:
    """Runs a model in this process."""

    def __init__(self, model: TokenizedModel, encoder: Encoder, pooling: PoolingType, settings: EmbedSettings) -> None:
        self._model = model
        self._tokenizer = Tokenizer({model.name: model})
        self._encoder = encoder
        self._pooling = pooling
        self._text_options = TextOptions(
            pooling, settings.truncate or Truncate.NONE, parse_special=model.config.parse_special
        )
        normalize = None if settings.normalize is None else _EUCLIDEAN if settings.normalize else _NOT_NORMALIZED
        self._answer_options = AnswerOptions(normalize=normalize, dimensions=settings.dimensions)

    @classmethod
    def load(cls, config: PoolhouseConfig, settings: EmbedSettings) -> Self:
        """Load the model.

        Raises:
            ModelLoadError: it cannot be had or does not load.
            PoolingUnavailable: it does not answer the pooling type.
            InvalidRequest: it has fewer dimensions than asked for.
        """
        name = config.default_model_name
        model = load_tokenizer(config, [name]).models[name]
        router = Router(config, {name: model.facts})
        pooling = settings.pooling or router.default_pooling(name)
        router.check(name, pooling)
        if settings.dimensions is not None and settings.dimensions > model.facts.dimensions:
            raise InvalidRequest(
                f"--dimensions is {settings.dimensions} and the model has {model.facts.dimensions}; give at most so many"
            )
        return cls(model, load_encoder(config, next(iter(config.encoders))), pooling, settings)

    def batches(self, texts: Iterable[str]) -> Generator[EmbedBatch, None, None]:
        """Yield one batch for each window of texts; the next one is tokenized while the encoder works."""
        started: deque[tuple[int, TokenBatch, Future[VectorBatch]]] = deque()
        start = 0
        for window in self._windows(texts):
            tokens = self._tokenizer.tokenize(
                TextBatch(
                    self._model.name,
                    window,
                    [0] * len(window),
                    [self._text_options],
                    [RequestFacts("local", Lane.BULK)],
                )
            )
            started.append((start, tokens, self._encoder.submit(tokens)))
            start += len(window)
            if len(started) == _WINDOWS_AHEAD:
                yield self._finish(*started.popleft())
        while started:
            yield self._finish(*started.popleft())

    def close(self) -> None:
        """Free the weights and the vocabulary."""
        self._encoder.close()
        self._model.vocabulary.close()

    def _windows(self, texts: Iterable[str]) -> Iterator[list[Input]]:
        matrices = self._pooling is PoolingType.NONE
        most_characters = _WINDOW_CHARACTERS // (_MATRIX_SHARE if matrices else 1)
        window: list[Input] = []
        characters = 0
        for text in texts:
            window.append(text)
            characters += len(text)
            if len(window) >= _WINDOW_TEXTS or characters >= most_characters:
                yield window
                window, characters = [], 0
        if window:
            yield window

    def _finish(self, start: int, tokens: TokenBatch, encoded: Future[VectorBatch]) -> EmbedBatch:
        vectors = encoded.result()
        errors: dict[int, PoolhouseError] = {start + item: error for item, error in vectors.errors.items()}
        matrix = self._pooling is PoolingType.NONE
        rows: list[Float32 | None] = []
        for item in range(len(vectors)):
            if item in vectors.errors:
                rows.append(None)
                continue
            finished = finish_rows(vectors.rows(item), self._answer_options, matrix, False)
            rows.append(finished if matrix else finished[0])
        return EmbedBatch(
            start=start,
            rows=rows,
            tokens=tokens.lengths.tolist(),
            truncated_tokens=int(tokens.cut_tokens.sum()),
            errors=errors,
            model=self._model.name,
            pooling=self._pooling,
            fingerprint=self._model.fingerprint,
        )

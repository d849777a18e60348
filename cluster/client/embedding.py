"""``embed``: what it sends, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import Literal, TypedDict

from cluster.client.answers import EmbedBatch, Gathering
from cluster.client.decoding import OCTET_STREAM, read_vectors
from cluster.client.errors import UnexpectedAnswer
from cluster.client.operations import OnErrorName, Operation, RequestSize, members_of, on_error_of
from cluster.client.packing import Job, print_text
from cluster.client.settling import Form, Settled
from cluster.types import Float32, PoolingType

VectorPooling = Literal[
    "mean",
    "cls",
    "last",
    "weighted",
    "rank",
    PoolingType.MEAN,
    PoolingType.CLS,
    PoolingType.LAST,
    PoolingType.WEIGHTED,
    PoolingType.RANK,
]
MatrixPooling = Literal["none", PoolingType.NONE]
Progress = Callable[[int, int], None]
"""Called with the items done and the tokens done so far."""

# A token has a vector of its own in the answer, some kilobytes for some bytes of text.
_MATRIX_SHARE = 8


class EmbedOptions(TypedDict, total=False):
    """Options of ``embed``; what is left out is the server's default.

    Attributes:
        model: name or alias.
        dimensions: cut each vector to so many and normalise again.
        normalize: True for Euclidean length 1, False for none, or llama.cpp's ``embd_normalize`` number.
        input_type: name of a prompt of the model (``query``, ``document``).
        truncate: ``none``, ``end`` or ``start``: what is cut off an item that is longer than the model takes.
        lane: ``interactive`` or ``bulk``.
        timeout_s: seconds for the whole call, from its start to the last item.
        on_error: ``raise`` ends the call at a bad item, ``skip`` goes on without it.
        progress: called with items done and tokens done, in the caller's thread.
    """

    model: str | None
    dimensions: int | None
    normalize: bool | float | None
    input_type: str | None
    truncate: str | bool | None
    lane: str | None
    timeout_s: float | None
    on_error: OnErrorName
    progress: Progress | None


def embedding(pooling: str | None, options: EmbedOptions, size: RequestSize) -> Operation[EmbedBatch]:
    """Return the operation behind ``embed``, ``embed_iter`` and ``embed_batches``."""
    unknown = sorted(set(options) - set(EmbedOptions.__optional_keys__))
    if unknown:
        raise TypeError(
            f"embed has no option {unknown[0]!r}; it has: {', '.join(sorted(EmbedOptions.__optional_keys__))}"
        )
    matrices = pooling == PoolingType.NONE
    normalize = options.get("normalize")
    if isinstance(normalize, bool):
        normalize = 2 if normalize else -1
    members = members_of(
        pooling=None if pooling is None else str(pooling),
        model=options.get("model"),
        dimensions=options.get("dimensions"),
        embd_normalize=normalize,
        input_type=options.get("input_type"),
        truncate=options.get("truncate"),
        lane=options.get("lane"),
        encoding_format=None if matrices else "base64",
    )
    return Operation(
        form=Form("/v1/embeddings", "input", members, {"accept": OCTET_STREAM} if matrices else {}),
        print_item=print_text,
        size=RequestSize(size.items, max(1, size.bytes // _MATRIX_SHARE)) if matrices else size,
        read=_embed_batch,
        on_error=on_error_of(options.get("on_error", "raise")),
        timeout_s=options.get("timeout_s"),
    )


def gathering(texts: object, pooling: str | None, options: EmbedOptions) -> Gathering:
    """Return an empty collection for the batches of one call."""
    expected = len(texts) if isinstance(texts, Sized) else 0
    return Gathering(expected, pooling == PoolingType.NONE, options.get("dimensions") or 0)


class Tally:
    """Follows the batches of one call: reports progress, and notices a model that was exchanged meanwhile."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._items = 0
        self._tokens = 0
        self._fingerprint = ""

    def count(self, batch: EmbedBatch) -> EmbedBatch:
        """Take the next batch and return it.

        Raises:
            UnexpectedAnswer: its vectors are another model's, or the same model's under other settings.
        """
        if self._fingerprint and batch.fingerprint not in ("", self._fingerprint):
            raise UnexpectedAnswer(
                f"the fingerprint of {batch.model} changed from {self._fingerprint} to {batch.fingerprint} at item "
                f"{batch.start}: the server changed its model or settings during the call, and vectors from before and "
                "after cannot be compared; embed all items again"
            )
        self._fingerprint = self._fingerprint or batch.fingerprint
        self._items += len(batch)
        self._tokens += sum(batch.tokens)
        if self._progress is not None:
            self._progress(self._items, self._tokens)
        return batch


def _embed_batch(job: Job, settled: Settled) -> EmbedBatch:
    rows: list[Float32 | None] = [None] * len(job)
    tokens = [0] * len(job)
    truncated_tokens = 0
    headers: Mapping[str, str] = {}
    for items, response in settled.answers:
        vectors = read_vectors(response, len(items))
        for item, row, count in zip(items, vectors.rows, vectors.tokens, strict=True):
            rows[item.index - job.start] = row
            tokens[item.index - job.start] = count
        truncated_tokens += vectors.truncated_tokens
        headers = response.headers
    return EmbedBatch(
        start=job.start,
        rows=rows,
        tokens=tokens,
        truncated_tokens=truncated_tokens,
        errors=settled.errors,
        model=headers.get("x-poolhouse-model", ""),
        pooling=headers.get("x-poolhouse-pooling", ""),
        fingerprint=headers.get("x-poolhouse-fingerprint", ""),
    )

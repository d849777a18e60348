"""What items weigh in the messages between stages, and how those are cut, so that nothing is sent that one message cannot carry.

For each item the larger of what it takes on the way there and in the answer: bounding the sum of these bounds both messages.
These are upper bounds of what pickle makes of them, not exact sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from cluster.batching.parts import Parts
from cluster.calls import AnswerOptions, Encoding, Input, OutputType
from cluster.errors import MessageTooLarge, VersionChanged
from cluster.pairs import Pair
from cluster.pooler import InteractionBatch, PieceBatch, PoolerBatch
from cluster.texts import TextBatch
from cluster.types import Float32, Int64, ModelFacts, PoolingType, RequestFacts, TokenBatch, VectorBatch

# Offsets, owners, lengths and what pickle puts around an item of a list.
_ITEM_BYTES = 64
_REQUEST_BYTES = 256

# What a reranker's template puts around a pair, in tokens at most.
_TEMPLATE_BYTES = 1_024

# The longest that a float32 is printed, such as -1.1754944e-38, with its comma; of an int8, -128 with its comma.
_PRINTED_FLOAT_BYTES = 16
_PRINTED_INT_BYTES = 5


def text_parts(cap_bytes: int, max_tokens: int) -> Parts[TextBatch, TokenBatch]:
    """Messages to the Tokenizer of a model whose sequences have at most ``max_tokens``."""
    return Parts(
        cap_bytes, lambda batch: _text_sizes(batch, max_tokens), _shared_text_bytes, TextBatch.part, _merge_tokens
    )


def token_parts(cap_bytes: int, facts: ModelFacts) -> Parts[TokenBatch, VectorBatch]:
    """Messages to an encoder of a model."""
    return Parts(
        cap_bytes,
        lambda batch: _token_sizes(batch, facts),
        lambda batch: _request_bytes(batch.requests),
        lambda batch, begin, end: replace(batch.select(range(begin, end)), backlog=batch.backlog),
        VectorBatch.concatenate,
        _refuse,
    )


def pooler_parts(cap_bytes: int) -> Parts[PoolerBatch, PieceBatch]:
    """Messages to the Pooler that ask for printed numbers."""
    return Parts(
        cap_bytes,
        _piece_sizes,
        lambda batch: _ITEM_BYTES * len(batch.options),
        PoolerBatch.part,
        PieceBatch.concatenate,
    )


def scorer_parts(cap_bytes: int) -> Parts[InteractionBatch, Float32]:
    """Messages to the Pooler that ask for scores."""
    return Parts(
        cap_bytes,
        _document_sizes,
        lambda batch: batch.queries.values.nbytes + _ITEM_BYTES * len(batch.queries),
        InteractionBatch.part,
        np.concatenate,
    )


def _merge_tokens(parts: Sequence[TokenBatch]) -> TokenBatch:
    if len({part.fingerprint for part in parts}) > 1:
        raise VersionChanged("tokenizers of two versions of the model have answered one request; it is prepared again")
    return TokenBatch.concatenate(parts)


def _refuse(message: TokenBatch, error: MessageTooLarge) -> VectorBatch:
    return VectorBatch.refused(message.fingerprint, error)


def _text_sizes(batch: TextBatch, max_tokens: int) -> Int64:
    """Bytes of each text, and of its token ids in the answer, int64 ``[n]``; ids are at most one for each byte of UTF-8."""
    own = _own_bytes(batch.inputs)
    around = [
        4 * len(options.prompt)
        + (_pair_bytes(options.pair) + _TEMPLATE_BYTES if options.pair is not None else _ITEM_BYTES)
        for options in batch.options
    ]
    tokens = np.minimum(own + np.asarray(around, dtype=np.int64)[batch.owner], max_tokens)
    return np.asarray(np.maximum(own, 4 * tokens) + _ITEM_BYTES, dtype=np.int64)


def _shared_text_bytes(batch: TextBatch) -> int:
    """Bytes of what a message of texts holds besides its items: queries, prompts, requests."""
    options = sum(
        len(each.prompt) * 4 + (_pair_bytes(each.pair) if each.pair is not None else 0) for each in batch.options
    )
    return options + _request_bytes(batch.requests)


def _token_sizes(batch: TokenBatch, facts: ModelFacts) -> Int64:
    """Bytes of each item's ids, and of its vector, matrix or scores in the answer, int64 ``[n]``."""
    lengths = batch.lengths
    widths = np.where(batch.pooling == PoolingType.RANK.code, max(1, len(facts.labels)), facts.dimensions)
    rows = np.where(batch.pooling == PoolingType.NONE.code, lengths, 1)
    return np.asarray(4 * np.maximum(lengths, rows * widths) + _ITEM_BYTES, dtype=np.int64)


def _request_bytes(requests: Sequence[RequestFacts]) -> int:
    """Bytes of what a message holds of its requests."""
    return sum(
        _REQUEST_BYTES + 4 * (len(each.request_id) + len(each.client)) + len(each.trace or "") for each in requests
    )


def _piece_sizes(batch: PoolerBatch) -> Int64:
    """Bytes of each item's numbers, and of what they are printed as in the answer, int64 ``[n]``."""
    factors = [max(4.0, _printed_bytes(options)) for options in batch.options]
    values = np.diff(batch.vectors.offsets)
    printed = values * np.asarray([factors[owner] for owner in batch.owner], dtype=np.float64)
    # Each row has brackets of its own.
    rows = values // np.maximum(batch.vectors.widths, 1)
    sizes: Int64 = np.ceil(printed).astype(np.int64) + 3 * rows + _ITEM_BYTES
    return sizes


def _document_sizes(batch: InteractionBatch) -> Int64:
    """Bytes of each document's vectors, int64 ``[n]``."""
    return np.asarray(4 * np.diff(batch.documents.offsets) + _ITEM_BYTES, dtype=np.int64)


def _pair_bytes(pair: Pair) -> int:
    return _text_bytes(pair.query) + _text_bytes(pair.instruction or "")


def _own_bytes(inputs: list[Input]) -> Int64:
    if set(map(type, inputs)) != {str}:
        return np.asarray([_text_bytes(item) for item in inputs], dtype=np.int64)
    # Fifty thousand texts are measured while the event loop waits.
    texts = cast("list[str]", inputs)
    characters = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    plain = np.fromiter(map(str.isascii, texts), dtype=np.bool_, count=len(texts))
    return np.asarray(np.where(plain, characters, 4 * characters), dtype=np.int64)


def _text_bytes(item: Input) -> int:
    """Bytes of a text in UTF-8, or of ids as pickle writes them, 5 at most for each."""
    if isinstance(item, str):
        return len(item) if item.isascii() else 4 * len(item)
    if str not in set(map(type, item)):
        return 5 * len(item)
    return sum(_text_bytes(part) + _ITEM_BYTES if isinstance(part, str) else 5 for part in item)


def _printed_bytes(options: AnswerOptions) -> float:
    is_float = options.output_type is OutputType.FLOAT
    if options.encoding is Encoding.JSON:
        return _PRINTED_FLOAT_BYTES if is_float else _PRINTED_INT_BYTES
    raw = 4.0 if is_float else 1.0
    return raw * 4 / 3 if options.encoding is Encoding.BASE64 else raw

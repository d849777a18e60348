"""What messages weigh, against what pickle makes of them, and how they are cut and put together again."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.assembly import load_tokenizer
from cluster.batching.parts import Parts
from cluster.calls import AnswerOptions, Encoding, OutputType
from cluster.engine.fake import fake_facts
from cluster.errors import MessageTooLarge
from cluster.message_sizes import pooler_parts, scorer_parts, text_parts, token_parts
from cluster.pairs import Pair
from cluster.pooler import InteractionBatch, Pooler, PoolerBatch
from cluster.texts import TextBatch, TextOptions
from cluster.types import PoolingType, RequestFacts, TokenBatch, VectorBatch, offsets_of
from tests.support.pipelines import MODEL, fake_config

_REQUEST = RequestFacts("a request's id", deadline_s=None, trace="00-trace-span-01", client="key")
_RANDOM = np.random.default_rng(7)


def _texts(count: int, pair: Pair | None = None) -> TextBatch:
    inputs: list[Any] = [
        ["word " * (40 + number), "wörd 語 😀 " * 20, list(range(49_000, 49_300)), ["a", 7, "語"]][number % 4]
        for number in range(count)
    ]
    if pair is not None:
        inputs = ["word " * 50] * count
    return TextBatch(
        MODEL, inputs, [0] * count, [TextOptions(PoolingType.NONE, pair=pair, prompt="query: ")], [_REQUEST]
    )


def _tokens(count: int, pooling: PoolingType) -> TokenBatch:
    lengths = [int(length) for length in _RANDOM.integers(1, 400, count)]
    return TokenBatch(
        fingerprint="f" * 32,
        token_ids=_RANDOM.integers(0, 50_000, sum(lengths), dtype=np.int32),
        offsets=offsets_of(lengths),
        pooling=np.full(count, pooling.code, dtype=np.uint8),
        second_segment=np.full(count, -1, dtype=np.int32),
        cut_tokens=np.zeros(count, dtype=np.int32),
        owner=np.zeros(count, dtype=np.int32),
        requests=[_REQUEST],
    )


def _vectors(rows: list[int], width: int = 16) -> VectorBatch:
    # The numbers that are longest when they are printed.
    values = (-1.1754944e-38 * _RANDOM.uniform(1, 2, sum(rows) * width)).astype(np.float32)
    return VectorBatch(
        "f", values, offsets_of([each * width for each in rows]), np.full(len(rows), width, dtype=np.int32)
    )


def _pieces(rows: list[int], options: AnswerOptions) -> PoolerBatch:
    count = len(rows)
    return PoolerBatch(_vectors(rows), [0] * count, [options], [True] * count, [False] * count)


def _pickled(value: object) -> int:
    return len(pickle.dumps(value))


@pytest.mark.parametrize("pooling", list(PoolingType))
def test_no_message_to_an_encoder_nor_its_answer_is_larger_than_it_is_said_to_be(pooling: PoolingType) -> None:
    batch = _tokens(50, pooling)
    parts = token_parts(1 << 20, fake_facts())
    rows = batch.lengths.tolist() if pooling is PoolingType.NONE else [1] * len(batch)
    said = parts.size_bytes(batch) + 1_024
    assert _pickled(batch) <= said
    assert _pickled(_vectors(rows, 1 if pooling is PoolingType.RANK else 16)) <= said


@pytest.mark.parametrize("pair", [None, Pair("a query of some words")], ids=["texts", "pairs"])
def test_no_message_to_the_tokenizer_nor_its_answer_is_larger_than_it_is_said_to_be(pair: Pair | None) -> None:
    batch = _texts(40, pair)
    stage = load_tokenizer(fake_config())
    answer = stage.tokenize(batch)
    said = text_parts(1 << 20, stage.models[MODEL].max_tokens).size_bytes(batch) + 1_024
    assert _pickled(batch) <= said
    assert _pickled(answer) <= said


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("output_type", list(OutputType))
def test_no_message_to_the_pooler_nor_its_answer_is_larger_than_it_is_said_to_be(
    encoding: Encoding, output_type: OutputType
) -> None:
    batch = _pieces([3, 90, 1, 200], AnswerOptions(encoding=encoding, output_type=output_type))
    said = pooler_parts(1 << 20).size_bytes(batch) + 1_024
    assert _pickled(batch) <= said
    assert _pickled(Pooler().finish(batch)) <= said


def test_no_message_to_the_scorer_is_larger_than_it_is_said_to_be() -> None:
    batch = InteractionBatch(_vectors([5, 7]), _vectors([20] * 9), np.asarray([0] * 4 + [1] * 5, dtype=np.int32))
    assert _pickled(batch) <= scorer_parts(1 << 20).size_bytes(batch) + 1_024


def _finished(batch: PoolerBatch) -> list[bytes]:
    return Pooler().finish(batch).pieces


_CUTS: list[tuple[Callable[[int], Parts[Any, Any]], Any, Callable[[Any], Any]]] = [
    (pooler_parts, _pieces([3, 90, 1, 200, 5, 60], AnswerOptions()), _finished),
    (
        scorer_parts,
        InteractionBatch(_vectors([5, 7]), _vectors([20] * 9), np.asarray([0] * 4 + [1] * 5, dtype=np.int32)),
        lambda batch: Pooler().score(batch).tolist(),
    ),
    (
        lambda cap: token_parts(cap, fake_facts()),
        _tokens(30, PoolingType.NONE),
        lambda batch: [batch.ids(item).tolist() for item in range(len(batch))],
    ),
    (
        lambda cap: text_parts(cap, 512),
        _texts(30),
        lambda batch: batch.inputs,
    ),
]


@pytest.mark.parametrize(("make", "work", "see"), _CUTS, ids=["pooler", "scorer", "encoder", "tokenizer"])
def test_parts_stay_below_the_cap_and_are_the_whole_in_order(
    make: Callable[[int], Parts[Any, Any]], work: Any, see: Callable[[Any], Any]
) -> None:
    whole = make(1)
    cap = max(int(whole.sizes(work).max()) + whole.shared_bytes(work), whole.size_bytes(work) // 4)
    parts = make(cap).divide(work)
    assert len(parts) > 2
    assert all(whole.size_bytes(part) <= cap for part in parts)
    assert [each for part in parts for each in see(part)] == see(work)


def test_a_matrix_that_is_too_large_alone_is_a_part_of_its_own() -> None:
    batch = _pieces([1, 500, 1], AnswerOptions())
    assert [len(part) for part in pooler_parts(1_000).divide(batch)] == [1, 1, 1]


def test_140_texts_of_500_tokens_with_1024_dimensions_are_never_one_message_of_256_mib() -> None:
    cap = 256 * 1024 * 1024 * 7 // 8
    rows, width = [500] * 140, 1_024
    # The sizes alone: nobody needs the 273 MiB of numbers.
    vectors = VectorBatch(
        "f",
        np.broadcast_to(np.float32(1), (sum(rows) * width,)),
        offsets_of([each * width for each in rows]),
        np.full(140, width, dtype=np.int32),
    )
    for encoding, least in ((Encoding.RAW, 2), (Encoding.JSON, 5)):
        batch = PoolerBatch(vectors, [0] * 140, [AnswerOptions(encoding=encoding)], [True] * 140, [False] * 140)
        parts = pooler_parts(cap).divide(batch)
        assert len(parts) == least
        assert all(4 * len(part.vectors.values) <= cap for part in parts)
        assert sum(map(len, parts)) == 140
    tokens = replace(_tokens(1, PoolingType.NONE))
    tokens = TokenBatch.concatenate([_items_of(tokens, 500) for _ in range(140)])
    messages = token_parts(cap, replace(fake_facts(), dimensions=width)).divide(tokens)
    assert [len(message) for message in messages] == [114, 26]


def _items_of(batch: TokenBatch, tokens: int) -> TokenBatch:
    return replace(batch, token_ids=np.ones(tokens, dtype=np.int32), offsets=offsets_of([tokens]))


@pytest.mark.parametrize("query_bytes", [300_000, 700_000, 990_000, 3_000_000])
def test_a_long_query_is_not_sent_again_for_each_of_its_documents(query_bytes: int) -> None:
    batch = _texts(1_000, Pair("x" * query_bytes))
    parts = text_parts(1_000_000, 512)
    sent_bytes = sum(parts.size_bytes(part) for part in parts.divide(batch))
    assert sent_bytes < 2 * parts.size_bytes(batch)


def test_a_client_with_a_long_name_is_counted() -> None:
    parts = text_parts(1 << 20, 512)
    short, long = _texts(1), _texts(1)
    long.requests = [replace(_REQUEST, client="key " + "k" * 5_000)]
    assert parts.size_bytes(long) - parts.size_bytes(short) >= _pickled(long) - _pickled(short) > 4_000


async def test_what_is_too_large_all_the_same_is_sent_in_halves_and_merged_in_order() -> None:
    sent: list[int] = []

    async def finish(batch: PoolerBatch) -> Any:
        sent.append(len(batch))
        if len(batch) > 2:
            raise MessageTooLarge("too large")
        return Pooler().finish(batch)

    batch = _pieces([1, 2, 3, 4, 5, 6, 7], AnswerOptions())
    answer = await pooler_parts(1 << 30).send(finish, batch)
    assert answer == Pooler().finish(batch)
    assert sent[0] == 7
    assert max(sent[-4:]) <= 2


async def test_one_item_that_cannot_be_sent_is_refused_alone() -> None:
    batch = _tokens(5, PoolingType.MEAN)
    deadly = batch.ids(3).tolist()

    async def encode(message: TokenBatch) -> VectorBatch:
        if any(message.ids(item).tolist() == deadly for item in range(len(message))):
            raise MessageTooLarge("too large")
        return _vectors([1] * len(message))

    answer = await token_parts(1 << 30, fake_facts()).send(encode, batch)
    assert list(answer.errors) == [3]
    assert answer.errors[3].status == 413
    assert np.diff(answer.offsets).tolist() == [16, 16, 16, 0, 16]

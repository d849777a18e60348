from __future__ import annotations

from typing import Any

import pytest

from cluster.admission import Admission
from cluster.assembly import describe, load_tokenizer
from cluster.calls import Input
from cluster.config import PoolhouseConfig, Truncate
from cluster.demand import estimate_tokens, learn_ratio
from cluster.pairs import Pair
from cluster.texts import TextBatch, TextOptions
from cluster.types import ModelDescription, PoolingType, RequestFacts
from tests.support.pipelines import fake_config, http_client, local_pipeline

SPECIALS = 2


def _texts(inputs: list[Input], options: TextOptions | None = None) -> TextBatch:
    options = options or TextOptions(PoolingType.MEAN)
    return TextBatch("fake", inputs, [0] * len(inputs), [options], [RequestFacts("a")])


@pytest.fixture
def config() -> PoolhouseConfig:
    return fake_config()


@pytest.fixture
def admission(config: PoolhouseConfig) -> Admission:
    return Admission(config, lambda encoder: 1)


def _model(config: PoolhouseConfig, max_tokens: int = 100_000) -> ModelDescription:
    described = describe(load_tokenizer(config))["fake"]
    return ModelDescription(
        described.facts, described.fingerprint, max_tokens, described.special_tokens, described.pair_tokens
    )


def _serve(admission: Admission, config: PoolhouseConfig, texts: TextBatch) -> int:
    """Tokenize a request as the stages do; return how many tokens it had."""
    tokens = load_tokenizer(config).tokenize(texts)
    learn_ratio(admission, texts, tokens, _model(config))
    return len(tokens.token_ids)


def test_ids_count_as_many_as_they_are(config: PoolhouseConfig, admission: Admission) -> None:
    assert estimate_tokens(admission, _texts([[5] * 4_000, [6] * 1_000]), _model(config)) == 5_000


def test_texts_in_a_mixed_input_count_by_characters_and_ids_by_number(
    config: PoolhouseConfig, admission: Admission
) -> None:
    texts = _texts([["x" * 400, 5, 6, "y" * 40], "z" * 80, [7, 8]])
    assert estimate_tokens(admission, texts, _model(config)) == 110 + 2 + SPECIALS + 20 + SPECIALS + 2


def test_ids_teach_nothing_of_texts(config: PoolhouseConfig, admission: Admission) -> None:
    for _ in range(20):
        assert _serve(admission, config, _texts([[5] * 500] * 10)) == 5_000
        _serve(admission, config, _texts([["of", *[5] * 400]]))
    assert estimate_tokens(admission, _texts(["x" * 40_000]), _model(config)) == 10_000 + SPECIALS


@pytest.mark.parametrize(
    "texts",
    [
        # 8,000 characters and 2,000 words, of which 512 tokens are left.
        _texts(["abc " * 2_000], TextOptions(PoolingType.MEAN, Truncate.END)),
        _texts(["abc " * 2_000], TextOptions(PoolingType.MEAN, Truncate.END, content_tokens=8)),
        # As many characters for a token as every other text, and two special tokens more.
        _texts(["abcd"] * 1_000),
        _texts(["abc"] * 400, TextOptions(PoolingType.MEAN, prompt="abc " * 100)),
        _texts(["abc " * 2_000], TextOptions(PoolingType.RANK, pair=Pair("abc " * 20, truncate=Truncate.END))),
        _texts(["abc"] * 400, TextOptions(PoolingType.RANK, pair=Pair("abc " * 200))),
    ],
    ids=["truncated", "cut", "special tokens", "prompt", "truncated pair", "pairs"],
)
def test_what_is_cut_and_what_stands_around_a_text_does_not_shift_the_ratio(
    config: PoolhouseConfig, admission: Admission, texts: TextBatch
) -> None:
    for _ in range(100):
        _serve(admission, config, texts)
    assert estimate_tokens(admission, _texts(["x" * 40_000]), _model(config)) == pytest.approx(10_000, rel=0.02)


def test_texts_that_could_not_be_tokenized_teach_nothing(config: PoolhouseConfig, admission: Admission) -> None:
    for _ in range(20):
        # One is too long, the other one is a word for four characters.
        _serve(admission, config, _texts(["x " * 4_000, "abc " * 400]))
    assert estimate_tokens(admission, _texts(["x" * 40_000]), _model(config)) == pytest.approx(10_000, rel=0.02)


def test_the_ratio_follows_what_texts_turn_out_to_be(config: PoolhouseConfig, admission: Admission) -> None:
    for _ in range(100):
        _serve(admission, config, _texts(["x " * 400] * 10))
    assert estimate_tokens(admission, _texts(["x" * 40_000]), _model(config)) == pytest.approx(20_000, rel=0.02)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (TextOptions(PoolingType.MEAN, Truncate.END), 512),
        (TextOptions(PoolingType.MEAN, Truncate.END, content_tokens=10), 10 + SPECIALS),
        (TextOptions(PoolingType.MEAN, Truncate.END, prompt="x" * 40, content_tokens=10), 10 + SPECIALS + 10),
        (TextOptions(PoolingType.RANK, pair=Pair("x" * 40, document_tokens=10, truncate=Truncate.END)), 10 + 10 + 2),
        (TextOptions(PoolingType.RANK, pair=Pair("x" * 40, max_tokens=64, truncate=Truncate.END)), 64),
    ],
)
def test_no_item_counts_for_more_than_may_be_left_of_it(
    config: PoolhouseConfig, admission: Admission, options: TextOptions, expected: int
) -> None:
    model = _model(config, max_tokens=512)
    assert estimate_tokens(admission, _texts(["x" * 40_000] * 3, options), model) == 3 * expected


async def test_after_clients_that_send_ids_a_text_is_let_in_by_its_own_size() -> None:
    limits: dict[str, Any] = {"max_queued_tokens": 12_000}
    seen: list[int] = []
    with local_pipeline(fake_config(limits=limits)) as local:
        admission = local.pipeline.stages.admission
        real = admission.check

        def check(shares: Any, tokens: int, *others: Any) -> None:
            seen.append(tokens)
            real(shares, tokens, *others)

        admission.check = check  # type: ignore[method-assign]
        async with http_client(local) as client:
            for _ in range(20):
                body = {"input": [[5] * 500] * 8, "pooling": "mean"}
                assert (await client.post("/v1/embeddings", json=body)).status_code == 200
            texts = {"input": ["word " * 80] * 100, "truncate": "end"}
            assert (await client.post("/v1/embeddings", json=texts)).status_code == 200
    assert seen[:20] == [4_000] * 20
    assert seen[20] == pytest.approx(40_000 / 4, rel=0.03)

"""llama.cpp against the NumPy forward passes of ``tests.support.ggufs``: every graph, head and vocabulary kind.

Flash attention is off except where it is the subject: with it, llama.cpp's float16 sums hide differences below 0.004.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.engine.llama import LlamaEngine, LlamaVocabulary
from cluster.models.body import write_body
from cluster.models.inspect import inspect_gguf
from cluster.models.token_table import TokenTable, read_token_types
from cluster.types import Float32, Int32, PoolingType, offsets_of
from tests.support.ggufs import (
    ReferenceModel,
    write_bert_reranker,
    write_gemma_embedding,
    write_modern_bert_reranker,
    write_qwen3_embedding,
    write_qwen3_reranker,
    write_xlm_roberta_reranker,
)


class Write(Protocol):
    def __call__(self, path: Path, *, seed: int = 0, half: bool = False) -> ReferenceModel: ...


RERANKERS: dict[str, Write] = {
    "bert": write_bert_reranker,
    "xlm-roberta": write_xlm_roberta_reranker,
    "modern-bert": write_modern_bert_reranker,
    "qwen3-reranker": write_qwen3_reranker,
}
EMBEDDERS: dict[str, Write] = {"qwen3-embedding": write_qwen3_embedding, "gemma-embedding": write_gemma_embedding}
ALL = RERANKERS | EMBEDDERS

SCORE_TOLERANCE = 1e-3
# Where keys and values pass through a float16 cache, single rounding flips move a hidden state by up to 0.0015.
HIDDEN_TOLERANCE = {"qwen3-reranker": 2e-3, "qwen3-embedding": 2e-3}
DEFAULT_HIDDEN_TOLERANCE = 1e-3
FLASH_TOLERANCE = 6e-3
HALF_TOLERANCE = 1e-2
# One token, two, one of the longest and several between, so that every micro-batch mixes lengths.
LENGTHS = (1, 2, 7, 19, 40, 3, 64)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReferenceModel]:
    folder = tmp_path_factory.mktemp("ggufs")
    return {name: write(folder / f"{name}.gguf") for name, write in ALL.items()}


@pytest.fixture(params=[False, True], ids=["whole", "headless"])
def headless(request: pytest.FixtureRequest) -> bool:
    """Whether the engine runs the file itself, or a body derived from it."""
    return bool(request.param)


@contextmanager
def opened(
    reference: ReferenceModel,
    *,
    micro_batch_tokens: int = 256,
    flash_attention: str = "off",
    headless: bool = False,
    segment_types: Float32 | None = None,
    shares_prefixes: bool = True,
) -> Iterator[LlamaEngine]:
    facts = inspect_gguf(reference.path).facts()
    path = reference.path
    if headless:
        path = path.with_suffix(".body.gguf")
        write_body(reference.path, path)
    # Gemma's graph scales what it looks up, and not what it is given.
    scale = facts.dimensions**0.5 if facts.architecture == "gemma-embedding" else 1.0
    engine = LlamaEngine(
        path,
        facts,
        micro_batch_tokens=micro_batch_tokens,
        context_tokens=facts.context_tokens,
        threads=1,
        flash_attention=flash_attention,
        rank=bool(reference.labels),
        table=TokenTable(reference.path, scale) if headless else None,
        segment_types=segment_types,
        shares_prefixes=shares_prefixes,
    )
    try:
        yield engine
    finally:
        engine.close()


def sequences_of(reference: ReferenceModel, lengths: Sequence[int] = LENGTHS) -> list[Int32]:
    random = np.random.default_rng(5)
    return [random.integers(0, reference.vocabulary_size, length, dtype=np.int32) for length in lengths]


def encoded(engine: LlamaEngine, sequences: Sequence[Int32]) -> Float32:
    return engine.encode(np.concatenate(sequences), offsets_of([len(ids) for ids in sequences]))


def scored(engine: LlamaEngine, sequences: Sequence[Int32], second_segment: int = -1) -> Float32:
    segments = np.full(len(sequences), second_segment, dtype=np.int32)
    return engine.score(np.concatenate(sequences), offsets_of([len(ids) for ids in sequences]), segments)


def hidden_of(reference: ReferenceModel, sequences: Sequence[Int32]) -> NDArray[np.float64]:
    return np.concatenate([reference.hidden(ids.tolist()) for ids in sequences])


def scores_of(reference: ReferenceModel, sequences: Sequence[Int32]) -> NDArray[np.float64]:
    return np.stack([reference.score(ids.tolist()) for ids in sequences])


@pytest.mark.parametrize("name", ALL)
def test_hidden_states_of_a_mixed_batch_are_the_references(
    name: str, headless: bool, references: dict[str, ReferenceModel]
) -> None:
    reference = references[name]
    sequences = sequences_of(reference)
    with opened(reference, headless=headless) as engine:
        hidden = encoded(engine, sequences)
    tolerance = HIDDEN_TOLERANCE.get(name, DEFAULT_HIDDEN_TOLERANCE)
    np.testing.assert_allclose(hidden, hidden_of(reference, sequences), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", RERANKERS)
def test_scores_of_a_mixed_batch_are_the_references(
    name: str, headless: bool, references: dict[str, ReferenceModel]
) -> None:
    reference = references[name]
    sequences = sequences_of(reference)
    with opened(reference, headless=headless) as engine:
        scores = scored(engine, sequences)
    assert scores.shape == (len(sequences), len(reference.labels))
    np.testing.assert_allclose(scores, scores_of(reference, sequences), rtol=0, atol=SCORE_TOLERANCE)


@pytest.mark.parametrize("name", RERANKERS)
def test_encode_and_score_take_turns_on_one_engine(name: str, references: dict[str, ReferenceModel]) -> None:
    reference = references[name]
    sequences = sequences_of(reference)
    with opened(reference) as engine:
        first_hidden, first_scores = encoded(engine, sequences), scored(engine, sequences)
        scored(engine, sequences[::-1])
        np.testing.assert_array_equal(encoded(engine, sequences), first_hidden)
        np.testing.assert_array_equal(scored(engine, sequences), first_scores)


@pytest.mark.parametrize("name", ALL)
def test_flash_attention_stays_within_its_own_tolerance(name: str, references: dict[str, ReferenceModel]) -> None:
    reference = references[name]
    sequences = sequences_of(reference)
    with opened(reference, flash_attention="on") as engine:
        hidden = encoded(engine, sequences)
        if reference.labels:
            expected = scores_of(reference, sequences)
            np.testing.assert_allclose(scored(engine, sequences), expected, rtol=0, atol=FLASH_TOLERANCE)
    np.testing.assert_allclose(hidden, hidden_of(reference, sequences), rtol=0, atol=FLASH_TOLERANCE)


@pytest.mark.parametrize("name", ["qwen3-embedding", "qwen3-reranker"])
@pytest.mark.parametrize("n_tokens", [64, 65, 128, 300], ids=lambda count: f"{count}-tokens")
def test_long_causal_text_decoded_in_steps_equals_one_step(
    name: str, n_tokens: int, headless: bool, references: dict[str, ReferenceModel]
) -> None:
    reference = references[name]
    sequences = sequences_of(reference, [n_tokens])
    with (
        opened(reference, micro_batch_tokens=512) as whole,
        opened(reference, micro_batch_tokens=64, headless=headless) as steps,
    ):
        one_step, several = encoded(whole, sequences), encoded(steps, sequences)
        # The cache is emptied between calls: a text after a long one sees nothing of it.
        short = sequences_of(reference, [9, 5])
        after = encoded(steps, short)
    np.testing.assert_allclose(several, one_step, rtol=0, atol=HIDDEN_TOLERANCE[name])
    np.testing.assert_allclose(several, hidden_of(reference, sequences), rtol=0, atol=HIDDEN_TOLERANCE[name])
    np.testing.assert_allclose(after, hidden_of(reference, short), rtol=0, atol=HIDDEN_TOLERANCE[name])


@pytest.mark.parametrize("name", ALL)
def test_half_precision_files_load_and_agree(name: str, tmp_path: Path) -> None:
    reference = ALL[name](tmp_path / "half.gguf", half=True)
    assert inspect_gguf(reference.path).quantisation == "f16"
    sequences = sequences_of(reference)
    with opened(reference) as engine:
        hidden = encoded(engine, sequences)
    np.testing.assert_allclose(hidden, hidden_of(reference, sequences), rtol=0, atol=HALF_TOLERANCE)


def test_classifier_of_three_labels_gives_three_scores(tmp_path: Path) -> None:
    reference = write_bert_reranker(tmp_path / "nli.gguf", labels=("entailment", "neutral", "contradiction"))
    sequences = sequences_of(reference)
    assert inspect_gguf(reference.path).facts().labels == reference.labels
    with opened(reference) as engine:
        scores = scored(engine, sequences)
    np.testing.assert_allclose(scores, scores_of(reference, sequences), rtol=0, atol=SCORE_TOLERANCE)


def test_modern_bert_head_may_read_the_first_token(tmp_path: Path) -> None:
    reference = write_modern_bert_reranker(tmp_path / "first.gguf", pool_mean=False)
    sequences = sequences_of(reference)
    with opened(reference) as engine:
        scores = scored(engine, sequences)
    np.testing.assert_allclose(scores, scores_of(reference, sequences), rtol=0, atol=SCORE_TOLERANCE)


def test_second_text_of_a_pair_has_token_type_one(references: dict[str, ReferenceModel]) -> None:
    reference = references["bert"]
    pairs = sequences_of(reference, [24, 13, 40])
    seconds = [10, 12, -1]
    with opened(reference, headless=True, segment_types=read_token_types(reference.path)) as engine:
        scores = engine.score(np.concatenate(pairs), offsets_of([24, 13, 40]), np.array(seconds, dtype=np.int32))
    types = [(np.arange(len(ids)) >= (second % 1000)).astype(int) for ids, second in zip(pairs, seconds, strict=True)]
    expected = [reference.score(ids.tolist(), types.tolist()) for ids, types in zip(pairs, types, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=SCORE_TOLERANCE)


def test_second_text_has_token_type_zero_unless_types_are_asked_for(references: dict[str, ReferenceModel]) -> None:
    reference = references["bert"]
    (ids,) = sequences_of(reference, [24])
    with opened(reference, headless=True) as engine:
        scores = scored(engine, [ids], second_segment=10)
    np.testing.assert_allclose(scores[0], reference.score(ids.tolist()), rtol=0, atol=SCORE_TOLERANCE)


@pytest.mark.parametrize("n_tokens", [65, 130, 300], ids=lambda count: f"{count}-tokens")
def test_long_causal_pair_scored_in_steps_is_the_references(
    n_tokens: int, headless: bool, references: dict[str, ReferenceModel]
) -> None:
    reference = references["qwen3-reranker"]
    sequences = sequences_of(reference, [n_tokens])
    with opened(reference, micro_batch_tokens=64, headless=headless) as engine:
        scores = scored(engine, sequences)
    np.testing.assert_allclose(scores, scores_of(reference, sequences), rtol=0, atol=SCORE_TOLERANCE)


@pytest.mark.parametrize("name", RERANKERS)
def test_scores_spread_and_depend_on_word_order(name: str, references: dict[str, ReferenceModel]) -> None:
    reference = references[name]
    random = np.random.default_rng(2)
    texts = random.integers(0, reference.vocabulary_size, (40, 20))
    # The ends stay, since the head of most models reads one of them.
    shuffled = np.concatenate([texts[:, :1], random.permuted(texts[:, 1:-1], axis=1), texts[:, -1:]], axis=1)
    scores, others = (np.stack([reference.score(ids.tolist()) for ids in rows]) for rows in (texts, shuffled))
    assert scores.std(axis=0).min() > 100 * SCORE_TOLERANCE
    assert np.median(np.abs(others - scores)) > 20 * SCORE_TOLERANCE


def test_token_types_change_a_berts_score(references: dict[str, ReferenceModel]) -> None:
    (ids,) = sequences_of(references["bert"], [24])
    typed = references["bert"].score(ids.tolist(), [0] * 10 + [1] * 14)
    assert np.abs(typed - references["bert"].score(ids.tolist())).max() > 20 * SCORE_TOLERANCE


@pytest.mark.parametrize("name", ALL)
def test_same_seed_gives_the_same_file(name: str, references: dict[str, ReferenceModel], tmp_path: Path) -> None:
    # The file's name is its model's name, so it must be the same too.
    again = ALL[name](tmp_path / f"{name}.gguf")
    assert again.path.read_bytes() == references[name].path.read_bytes()
    (tmp_path / "other").mkdir()
    other = ALL[name](tmp_path / "other" / f"{name}.gguf", seed=1)
    assert other.path.read_bytes() != again.path.read_bytes()


@pytest.mark.parametrize("name", ALL)
def test_facts_name_what_the_model_is(name: str, references: dict[str, ReferenceModel]) -> None:
    reference = references[name]
    facts = inspect_gguf(reference.path).facts()
    assert facts.causal is name.startswith("qwen3")
    assert facts.dimensions == reference.dimensions
    assert facts.vocabulary_size == reference.vocabulary_size
    assert facts.labels == reference.labels
    assert (PoolingType.RANK in facts.pooling_types) is (name in RERANKERS)
    trained = {"qwen3-embedding": PoolingType.LAST, "gemma-embedding": PoolingType.MEAN}
    assert facts.trained_pooling is trained.get(name, PoolingType.RANK)


@pytest.mark.parametrize(
    ("name", "added", "prefix", "suffix"),
    [
        ("bert", (True, True, False), b"[CLS]", b"[SEP]"),
        ("xlm-roberta", (True, True, True), b"<s>", b"</s>"),
        ("modern-bert", (True, True, True), b"[CLS]", b"[SEP]"),
        ("qwen3-embedding", (False, True, False), b"", b"<|endoftext|>"),
        ("qwen3-reranker", (False, False, False), b"", b""),
        ("gemma-embedding", (True, True, False), b"<bos>", b"<eos>"),
    ],
)
def test_vocabulary_spells_text_and_puts_its_special_tokens_around(
    name: str, added: tuple[bool, bool, bool], prefix: bytes, suffix: bytes, references: dict[str, ReferenceModel]
) -> None:
    vocabulary = LlamaVocabulary(references[name].path)
    try:
        assert (vocabulary.add_bos, vocabulary.add_eos, vocabulary.add_sep) == added
        assert b"".join(vocabulary.piece(token) for token in vocabulary.prefix) == prefix
        assert b"".join(vocabulary.piece(token) for token in vocabulary.suffix) == suffix
        ids = vocabulary.tokenize("the rivers of paris, 42 zebras!")
        assert 8 < len(ids) < 31
        assert vocabulary.detokenize(ids).strip() == "the rivers of paris, 42 zebras!"
        assert (vocabulary.template("rerank") is not None) is (name == "qwen3-reranker")
    finally:
        vocabulary.close()

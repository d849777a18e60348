"""Causal rerankers: what all pairs begin with is decoded once, and the scores are those of whole pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cluster.engine.llama.batch import Batch
from cluster.engine.llama.context import Context
from cluster.types import Int32
from tests.model.test_reference_models import SCORE_TOLERANCE, opened, scored, scores_of
from tests.support.ggufs import ReferenceModel, write_qwen3_reranker

SHARING_TOLERANCE = 1e-4
"""In probability."""


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> ReferenceModel:
    return write_qwen3_reranker(tmp_path_factory.mktemp("ggufs") / "reranker.gguf")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each llama.cpp call."""
    counts: list[int] = []
    real = Context.run

    def counted(self: Context, batch: Batch) -> None:
        counts.append(int(batch.struct.n_tokens))
        real(self, batch)

    monkeypatch.setattr(Context, "run", counted)
    return counts


def _ids(reference: ReferenceModel, length: int, seed: int) -> Int32:
    return np.random.default_rng(seed).integers(0, reference.vocabulary_size, length, dtype=np.int32)


def _pairs(reference: ReferenceModel, prefix: Int32, lengths: Sequence[int], seed: int = 1) -> list[Int32]:
    return [np.concatenate([prefix, _ids(reference, length, seed + item)]) for item, length in enumerate(lengths)]


@pytest.mark.parametrize("headless", [False, True], ids=["whole", "headless"])
@pytest.mark.parametrize("flash_attention", ["off", "on"])
def test_scores_with_and_without_sharing_are_equal(
    reranker: ReferenceModel, headless: bool, flash_attention: str
) -> None:
    pairs = _pairs(reranker, _ids(reranker, 30, 0), [1, 20, 7, 33, 12])
    with (
        opened(reranker, headless=headless, flash_attention=flash_attention) as sharing,
        opened(reranker, headless=headless, flash_attention=flash_attention, shares_prefixes=False) as plain,
    ):
        shared, again, whole = scored(sharing, pairs), scored(sharing, pairs), scored(plain, pairs)
    tolerance = SHARING_TOLERANCE if flash_attention == "off" else 1e-3
    np.testing.assert_allclose(shared, whole, rtol=0, atol=tolerance)
    np.testing.assert_allclose(again, whole, rtol=0, atol=tolerance)


def test_scores_of_shared_prefixes_are_the_references(reranker: ReferenceModel) -> None:
    query, other = _ids(reranker, 40, 0), _ids(reranker, 25, 100)
    # The same query again, a longer prefix, another query, one pair alone, pairs with nothing in common.
    calls = [
        _pairs(reranker, query, [9, 20, 5]),
        _pairs(reranker, query, [12, 3, 30], seed=20),
        _pairs(reranker, np.concatenate([query, other]), [4, 8]),
        _pairs(reranker, other, [16, 2, 40]),
        _pairs(reranker, other, [21], seed=50),
        [_ids(reranker, length, length) for length in (17, 33, 50)],
    ]
    with opened(reranker, headless=True) as engine:
        for pairs in calls:
            np.testing.assert_allclose(scored(engine, pairs), scores_of(reranker, pairs), rtol=0, atol=SCORE_TOLERANCE)


def test_prefix_is_decoded_once_for_all_and_not_again_for_the_same_query(
    reranker: ReferenceModel, decoded: list[int]
) -> None:
    query = _ids(reranker, 40, 0)
    with opened(reranker) as engine:
        scored(engine, _pairs(reranker, query, [10, 10, 10]))
        assert decoded == [40, 30]
        scored(engine, _pairs(reranker, query, [8, 9], seed=30))
        assert decoded[2:] == [17]
        # A pair alone is cut where it begins to differ from the pair that is in the cache.
        scored(engine, _pairs(reranker, query, [11], seed=40))
        assert decoded[3:] == [11]


def test_equal_pairs_and_long_pairs_are_scored_whole(reranker: ReferenceModel, decoded: list[int]) -> None:
    (pair,) = _pairs(reranker, _ids(reranker, 20, 0), [20])
    (long,) = _pairs(reranker, _ids(reranker, 90, 7), [61])
    with opened(reranker, micro_batch_tokens=64, headless=True) as engine:
        first = scored(engine, [pair])
        # Its last token is decoded again, since the head reads its hidden state.
        np.testing.assert_allclose(scored(engine, [pair]), first, rtol=0, atol=SHARING_TOLERANCE)
        assert decoded == [40, 1]
        np.testing.assert_allclose(scored(engine, [long]), scores_of(reranker, [long]), rtol=0, atol=SCORE_TOLERANCE)
        assert decoded[2:] == [64, 64, 23]


def test_failed_call_leaves_nothing_to_the_next(reranker: ReferenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = _pairs(reranker, _ids(reranker, 40, 0), [10, 12])
    with opened(reranker) as engine:
        scored(engine, pairs)
        with monkeypatch.context() as broken:

            def fail(self: Context, batch: Batch) -> None:
                raise RuntimeError("out of memory")

            broken.setattr(Context, "run", fail)
            with pytest.raises(RuntimeError):
                scored(engine, _pairs(reranker, _ids(reranker, 40, 60), [10, 12]))
        np.testing.assert_allclose(scored(engine, pairs), scores_of(reranker, pairs), rtol=0, atol=SCORE_TOLERANCE)


def test_half_precision_reranker_shares_prefixes_too(tmp_path: Path) -> None:
    reference = write_qwen3_reranker(tmp_path / "half.gguf", half=True)
    pairs = _pairs(reference, _ids(reference, 50, 0), [20, 14, 9])
    with opened(reference) as sharing, opened(reference, shares_prefixes=False) as plain:
        np.testing.assert_allclose(scored(sharing, pairs), scored(plain, pairs), rtol=0, atol=1e-3)

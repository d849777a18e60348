from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.pooler import InteractionBatch, Pooler
from cluster.rerank import max_sim
from cluster.types import Float32, VectorBatch, offsets_of

WIDTH = 8


def _rows(seed: int, lengths: Sequence[int]) -> list[Float32]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(length, WIDTH)).astype(np.float32) for length in lengths]


def _vectors(parts: Sequence[Float32]) -> VectorBatch:
    return VectorBatch(
        fingerprint="f",
        values=np.concatenate([part.reshape(-1) for part in parts]),
        offsets=offsets_of([part.size for part in parts]),
        widths=np.full(len(parts), WIDTH, dtype=np.int32),
    )


def _batch(seed: int, queries: Sequence[int], documents: Sequence[int], query_of: Sequence[int]) -> InteractionBatch:
    return InteractionBatch(
        queries=_vectors(_rows(seed, queries)),
        documents=_vectors(_rows(seed + 1, documents)),
        query_of=np.asarray(query_of, dtype=np.int32),
    )


def _alone(batch: InteractionBatch) -> list[float]:
    return [
        float(max_sim(batch.queries.rows(query), rows := batch.documents.rows(item), offsets_of([len(rows)]))[0])
        for item, query in enumerate(batch.query_of.tolist())
    ]


def test_documents_of_one_query_score_as_each_alone() -> None:
    batch = _batch(0, [3], [5, 1, 9, 2], [0, 0, 0, 0])
    np.testing.assert_allclose(Pooler().score(batch), _alone(batch), rtol=1e-5)


def test_every_document_is_scored_with_its_own_query() -> None:
    batch = _batch(1, [3, 1, 4], [5, 1, 9, 2, 2], [0, 0, 1, 2, 2])
    np.testing.assert_allclose(Pooler().score(batch), _alone(batch), rtol=1e-5)


def test_joined_messages_give_the_same_scores_as_alone() -> None:
    batches = [_batch(2, [3], [5, 1], [0, 0]), _batch(4, [2, 6], [4, 4, 1], [0, 1, 1]), _batch(6, [1], [3], [0])]
    pooler = Pooler()
    joined = InteractionBatch.concatenate(batches)
    assert len(joined) == 6
    np.testing.assert_allclose(
        pooler.score(joined), np.concatenate([pooler.score(batch) for batch in batches]), rtol=1e-5
    )


def test_one_message_is_joined_without_a_copy() -> None:
    batch = _batch(8, [3], [5], [0])
    assert InteractionBatch.concatenate([batch]) is batch

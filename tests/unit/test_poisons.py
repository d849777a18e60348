from __future__ import annotations

import numpy as np

from cluster.errors import PoisonousInput
from cluster.poisons import Poisons, poisonous
from cluster.types import PoolingType, RequestFacts, TokenBatch, VectorBatch, offsets_of


def _batch(*items: list[int], pooling: PoolingType = PoolingType.MEAN) -> TokenBatch:
    count = len(items)
    return TokenBatch(
        fingerprint="f",
        token_ids=np.asarray([token for item in items for token in item], dtype=np.int32),
        offsets=offsets_of([len(item) for item in items]),
        pooling=np.full(count, pooling.code, dtype=np.uint8),
        second_segment=np.full(count, -1, dtype=np.int32),
        cut_tokens=np.zeros(count, dtype=np.int32),
        owner=np.zeros(count, dtype=np.int32),
        requests=[RequestFacts("r")],
    )


def _answer(count: int, guilty: int) -> VectorBatch:
    return VectorBatch(
        fingerprint="f",
        values=np.zeros(0, dtype=np.float32),
        offsets=np.zeros(count + 1, dtype=np.int64),
        widths=np.ones(count, dtype=np.int32),
        errors={guilty: poisonous()},
    )


def test_a_guilty_item_is_known_again_in_any_message() -> None:
    poisons = Poisons()
    poisons.learn(_batch([1], [2, 3], [4]), _answer(3, 1))
    refused = poisons.refuse(_batch([9], [8], [2, 3]))
    assert list(refused.errors) == [2]
    assert isinstance(refused.errors[2], PoisonousInput)


def test_the_innocent_pass_untouched() -> None:
    poisons = Poisons()
    poisons.learn(_batch([1], [2, 3]), _answer(2, 1))
    batch = _batch([1], [2], [3], [3, 2])
    assert poisons.refuse(batch) is batch
    other_pooling = _batch([2, 3], pooling=PoolingType.RANK)
    assert poisons.refuse(other_pooling) is other_pooling


def test_memory_is_bounded_and_keeps_what_was_seen_last() -> None:
    poisons = Poisons(most=2)
    poisons.learn(_batch([1]), _answer(1, 0))
    poisons.learn(_batch([2]), _answer(1, 0))
    assert poisons.refuse(_batch([1])).errors
    poisons.learn(_batch([3]), _answer(1, 0))
    assert len(poisons) == 2
    assert list(poisons.refuse(_batch([1], [2], [3])).errors) == [0, 2]

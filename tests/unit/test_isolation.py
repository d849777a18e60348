"""Each test starts real child processes, which end with it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from cluster import isolation
from cluster.assembly import load_tokenizer
from cluster.config import parse_config
from cluster.engine.fake import FakeEngine
from cluster.errors import InvalidRequest, PoisonousInput, ReplicaLost
from cluster.isolation import encode_isolated
from cluster.pooling import pool_one
from cluster.tokenization import TextBatch, TextOptions
from cluster.types import PoolingType, RequestFacts, TokenBatch, offsets_of

POISON_ID = 13
ARGS: dict[str, Any] = {
    "models": {"m": {"source": "fake"}},
    "encoders": {"e": {"model": "m", "engine": "fake", "fake_poison_id": POISON_ID}},
}


def _tokens(*items: list[int]) -> TokenBatch:
    texts = TextBatch("m", list(items), [0] * len(items), [TextOptions(PoolingType.MEAN)], [RequestFacts("r")])
    return load_tokenizer(parse_config(ARGS)).tokenize(texts)


def test_the_guilty_item_alone_is_refused() -> None:
    innocent = [[5, 6], [7], [8, 9, 10]]
    answer = encode_isolated(ARGS, "e", _tokens(innocent[0], [4, POISON_ID], *innocent[1:]))
    assert list(answer.errors) == [1]
    assert isinstance(answer.errors[1], PoisonousInput)
    assert answer.errors[1].status == 422
    for item, ids in zip((0, 2, 3), innocent, strict=True):
        hidden = FakeEngine().encode(np.asarray(ids, dtype=np.int32), offsets_of([len(ids)]))
        np.testing.assert_array_equal(answer.rows(item)[0], pool_one(hidden, PoolingType.MEAN).ravel())


def test_an_item_that_carries_an_error_keeps_it() -> None:
    batch = _tokens([5], [50_000])
    answer = encode_isolated(ARGS, "e", batch)
    assert list(answer.errors) == [1]
    assert type(answer.errors[1]) is InvalidRequest


def test_a_child_that_has_ended_between_two_items_is_a_dead_child() -> None:
    child = isolation._Child(ARGS, "e")
    child._process.kill()
    child._process.wait()
    with pytest.raises(isolation._ChildDied):
        child.encode(_tokens([5]))


def test_work_that_is_stopped_goes_on_to_no_further_item() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(ReplicaLost):
        encode_isolated(ARGS, "e", _tokens([5]), stop)


def test_an_encoder_that_does_not_start_blames_no_item() -> None:
    broken = {**ARGS, "models": {"m": {"source": "./there-is-no-such-file.gguf"}}}
    broken["encoders"] = {"e": {"model": "m"}}
    with pytest.raises(ReplicaLost):
        encode_isolated(broken, "e", _tokens([5]))

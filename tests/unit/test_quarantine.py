from __future__ import annotations

import numpy as np

from cluster.errors import Overloaded, PoisonousInput
from cluster.quarantine import Bound, Quarantine, client_of, poisonous
from cluster.types import PoolingType, RequestFacts, TokenBatch, VectorBatch, offsets_of


class _Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def _batch(
    *items: list[int], pooling: PoolingType = PoolingType.MEAN, fingerprint: str = "f", client: str = ""
) -> TokenBatch:
    count = len(items)
    return TokenBatch(
        fingerprint=fingerprint,
        token_ids=np.asarray([token for item in items for token in item], dtype=np.int32),
        offsets=offsets_of([len(item) for item in items]),
        pooling=np.full(count, pooling.code, dtype=np.uint8),
        second_segment=np.full(count, -1, dtype=np.int32),
        cut_tokens=np.zeros(count, dtype=np.int32),
        owner=np.zeros(count, dtype=np.int32),
        requests=[RequestFacts("r", client=client)],
    )


def _answer(items: int, *guilty: int) -> VectorBatch:
    return VectorBatch(
        fingerprint="f",
        values=np.zeros(items, dtype=np.float32),
        offsets=offsets_of([1] * items),
        widths=np.ones(items, dtype=np.int32),
        errors={item: poisonous() for item in guilty},
    )


def test_a_deadly_item_is_refused_wherever_it_comes_again() -> None:
    quarantine = Quarantine()
    quarantine.learn(_batch([1], [2, 3], [4]), _answer(3, 1))
    refused = quarantine.refuse(_batch([9], [8], [2, 3]))
    assert list(refused.errors) == [2]
    assert isinstance(refused.errors[2], PoisonousInput)


def test_what_is_not_deadly_passes_untouched() -> None:
    quarantine = Quarantine()
    quarantine.learn(_batch([1], [2, 3]), _answer(2, 1))
    batch = _batch([2], [3], [2, 3, 4])
    assert quarantine.refuse(batch) is batch
    other_pooling = _batch([2, 3], pooling=PoolingType.NONE)
    assert quarantine.refuse(other_pooling) is other_pooling


def test_what_is_deadly_to_one_version_of_a_model_is_nothing_to_another() -> None:
    quarantine = Quarantine()
    quarantine.learn(_batch([1]), _answer(1, 0))
    assert quarantine.refuse(_batch([1])).errors
    assert not quarantine.refuse(_batch([1], fingerprint="another")).errors


def test_a_verdict_expires() -> None:
    clock = _Clock()
    quarantine = Quarantine(clock=clock)
    quarantine.learn(_batch([1]), _answer(1, 0))
    clock.now_s += 3_599
    assert quarantine.refuse(_batch([1])).errors
    clock.now_s += 2
    assert not quarantine.refuse(_batch([1])).errors
    assert len(quarantine) == 0


def test_a_verdict_expires_although_its_text_keeps_coming() -> None:
    clock = _Clock()
    quarantine = Quarantine(clock=clock)
    quarantine.learn(_batch([1]), _answer(1, 0))
    for _ in range(3):
        clock.now_s += 1_199
        refused = quarantine.refuse(_batch([1]))
        # The encoder passes such an item by and answers with the error that it brought.
        quarantine.learn(refused, VectorBatch.refused("f", refused.errors[0]))
    clock.now_s += 4
    assert not quarantine.refuse(_batch([1])).errors


def test_the_oldest_is_forgotten_first() -> None:
    quarantine = Quarantine(most=2)
    quarantine.learn(_batch([1]), _answer(1, 0))
    quarantine.learn(_batch([2]), _answer(1, 0))
    assert quarantine.refuse(_batch([1])).errors
    quarantine.learn(_batch([3]), _answer(1, 0))
    assert len(quarantine) == 2
    assert list(quarantine.refuse(_batch([1], [2], [3])).errors) == [0, 2]


def test_a_client_with_ever_new_deadly_texts_is_refused_for_a_while_and_nobody_else_is() -> None:
    clock = _Clock()
    quarantine = Quarantine(clock=clock)
    for number in range(3):
        assert not quarantine.refuse(_batch([50 + number], client=client_of("one", None))).errors
        quarantine.learn(_batch([50 + number], client=client_of("one", None)), _answer(1, 0))
    refused = quarantine.refuse(_batch([7], client=client_of("one", None)))
    assert isinstance(refused.errors[0], Overloaded)
    assert refused.errors[0].extra["retry_after_s"] == 600
    assert not quarantine.refuse(_batch([7], client=client_of("two", None))).errors
    assert not quarantine.refuse(_batch([7])).errors
    clock.now_s += 601
    assert not quarantine.refuse(_batch([7], client=client_of("one", None))).errors


def test_one_text_that_comes_again_counts_once_against_its_client() -> None:
    quarantine = Quarantine()
    for _ in range(5):
        quarantine.learn(_batch([50], client=client_of("one", None)), _answer(1, 0))
    assert not quarantine.refuse(_batch([7], client=client_of("one", None))).errors


def test_an_address_with_ever_new_deadly_texts_is_refused_and_no_other_address_and_no_key_is() -> None:
    quarantine = Quarantine()
    bad = client_of(None, "192.0.2.7")
    for number in range(10):
        assert not quarantine.refuse(_batch([50 + number], client=bad)).errors
        quarantine.learn(_batch([50 + number], client=bad), _answer(1, 0))
    assert isinstance(quarantine.refuse(_batch([7], client=bad)).errors[0], Overloaded)
    for other in (client_of(None, "192.0.2.8"), client_of("192.0.2.7", "192.0.2.7"), ""):
        assert not quarantine.refuse(_batch([7], client=other)).errors


def test_a_client_is_known_by_its_key_wherever_it_is_and_else_by_what_it_cannot_choose_of_its_address() -> None:
    assert client_of("k", "192.0.2.7") == client_of("k", "192.0.2.8")
    assert (
        client_of(None, "2001:db8::1") == client_of(None, "2001:db8:0:0:ffff::1") != client_of(None, "2001:db8:0:1::1")
    )
    assert client_of(None, "::ffff:192.0.2.7") == client_of(None, "192.0.2.7")
    assert len(client_of(None, "x" * 10_000)) < 100


def test_a_bound_allows_so_many_within_a_time() -> None:
    clock = _Clock()
    bound = Bound(2, 60.0, clock)
    assert bound.take()
    clock.now_s += 20
    assert bound.take()
    assert not bound.take()
    assert bound.wait_s == 40
    clock.now_s += 40
    assert bound.take()
    assert not bound.take()

from __future__ import annotations

import pickle

import numpy as np
import pytest

from cluster.errors import InputTooLong, PoolhouseError
from cluster.types import (
    Lane,
    PoolingType,
    Provenance,
    RequestFacts,
    TokenBatch,
    VectorBatch,
    offsets_of,
    pooling_of,
)

_TOO_LONG = InputTooLong("too long", "input[1]", tokens=600)


def _tokens(
    sequences: list[list[int]], *, requests: list[str], owner: list[int], failed: int | None = None
) -> TokenBatch:
    """Item i has pooling type number i, its second text begins at i, and i tokens were cut."""
    count = len(sequences)
    return TokenBatch(
        fingerprint="mark",
        token_ids=np.asarray([token_id for sequence in sequences for token_id in sequence], dtype=np.int32),
        offsets=offsets_of([len(sequence) for sequence in sequences]),
        pooling=np.arange(count, dtype=np.uint8),
        second_segment=np.arange(count, dtype=np.int32),
        cut_tokens=np.arange(count, dtype=np.int32),
        owner=np.asarray(owner, dtype=np.int32),
        requests=[RequestFacts(name, Lane.BULK, deadline_s=1.5, trace=f"trace-{name}") for name in requests],
        errors={} if failed is None else {failed: _TOO_LONG},
    )


def _three() -> TokenBatch:
    return _tokens([[1, 2, 3], [], [4, 5]], requests=["a", "b"], owner=[0, 1, 0], failed=1)


def _seen(batch: TokenBatch) -> list[tuple[list[int], int, int, int, str, PoolhouseError | None]]:
    """What belongs to each item, whatever the message around it looks like."""
    return [
        (
            batch.ids(item).tolist(),
            int(batch.pooling[item]),
            int(batch.second_segment[item]),
            int(batch.cut_tokens[item]),
            batch.requests[batch.owner[item]].request_id,
            batch.errors.get(item),
        )
        for item in range(len(batch))
    ]


def _check_types(batch: TokenBatch) -> None:
    found = {
        name: getattr(batch, name).dtype
        for name in ("token_ids", "offsets", "pooling", "second_segment", "cut_tokens", "owner")
    }
    expected = {name: np.dtype(np.int32) for name in found}
    assert found == expected | {"offsets": np.dtype(np.int64), "pooling": np.dtype(np.uint8)}


def _vectors(rows: list[list[list[float]]], *, failed: int | None = None) -> VectorBatch:
    flat = [np.asarray(item, dtype=np.float32).reshape(-1) for item in rows]
    return VectorBatch(
        fingerprint="mark",
        values=np.concatenate(flat) if flat else np.empty(0, dtype=np.float32),
        offsets=offsets_of([len(part) for part in flat]),
        widths=np.asarray([len(item[0]) if item else 1 for item in rows], dtype=np.int32),
        errors={} if failed is None else {failed: _TOO_LONG},
        encoded_tokens=7,
        provenance=Provenance.of(np.asarray([[item, item + 0.5] for item in range(len(rows))]), "build"),
    )


def _three_vectors() -> VectorBatch:
    """A matrix of two tokens, an error and a score."""
    return _vectors([[[1.0, 2.0], [3.0, 4.0]], [], [[5.0]]], failed=1)


def _rows(batch: VectorBatch) -> list[object]:
    return [batch.errors[item] if item in batch.errors else batch.rows(item).tolist() for item in range(len(batch))]


def test_codes_name_pooling_types_both_ways() -> None:
    assert [pooling_of(pooling.code) for pooling in PoolingType] == list(PoolingType)
    # Messages between versions carry these numbers.
    assert {str(pooling): pooling.code for pooling in PoolingType} == {
        "none": 0,
        "mean": 1,
        "cls": 2,
        "last": 3,
        "rank": 4,
        "weighted": 5,
    }


def test_offsets_begin_at_zero_and_end_at_the_total() -> None:
    assert offsets_of([3, 0, 2]).tolist() == [0, 3, 3, 5]
    assert offsets_of([]).tolist() == [0]
    assert offsets_of(np.asarray([2], dtype=np.int64)).dtype == np.int64


def test_token_batch_counts_and_cuts_its_items() -> None:
    batch = _three()
    assert len(batch) == 3
    assert batch.lengths.tolist() == [3, 0, 2]
    assert [batch.ids(item).tolist() for item in range(3)] == [[1, 2, 3], [], [4, 5]]
    assert np.shares_memory(batch.ids(0), batch.token_ids)


@pytest.mark.parametrize("items", [[0, 1, 2], [2, 1, 0], [1], [2, 2, 0], []])
def test_selected_items_keep_all_that_is_theirs(items: list[int]) -> None:
    batch = _three()
    chosen = batch.select(items)
    assert _seen(chosen) == [_seen(batch)[item] for item in items]
    assert set(chosen.errors) == {new for new, old in enumerate(items) if old == 1}
    assert chosen.fingerprint == "mark"
    _check_types(chosen)


def test_concatenated_items_keep_all_that_is_theirs() -> None:
    one = _three()
    two = _tokens([[6], [7, 8]], requests=["c"], owner=[0, 0], failed=0)
    none = _tokens([], requests=["d"], owner=[])
    whole = TokenBatch.concatenate([one, none, two, one])
    assert _seen(whole) == _seen(one) + _seen(two) + _seen(one)
    assert set(whole.errors) == {1, 3, 6}
    _check_types(whole)


def test_selection_undoes_concatenation() -> None:
    one, two = _three(), _tokens([[6], [7, 8]], requests=["c"], owner=[0, 0], failed=0)
    whole = TokenBatch.concatenate([one, two])
    assert _seen(whole.select(range(3))) == _seen(one)
    assert _seen(whole.select(range(3, 5))) == _seen(two)


def test_concatenation_leaves_its_parts_as_they_are() -> None:
    one, two = _three(), _three()
    TokenBatch.concatenate([one, two])
    assert _seen(one) == _seen(two) == _seen(_three())
    assert len(one.requests) == 2


def test_one_batch_concatenated_is_itself() -> None:
    batch, vectors = _three(), _three_vectors()
    assert TokenBatch.concatenate([batch]) is batch
    assert VectorBatch.concatenate([vectors]) is vectors


def test_facts_of_a_request_stand_once_for_its_items() -> None:
    whole = TokenBatch.concatenate([_three(), _three()])
    assert [facts.request_id for facts in whole.requests] == ["a", "b", "a", "b"]
    assert whole.owner.tolist() == [0, 1, 0, 2, 3, 2]
    assert whole.requests[0] == RequestFacts("a", Lane.BULK, 1.5, "trace-a")


def test_a_message_carries_the_time_that_is_left_when_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("cluster.types.messages.time.monotonic", lambda: now_s)
    facts = RequestFacts("a", Lane.BULK, deadline_s=112.0, trace="t")
    assert facts.remaining_s == 12.0
    # It waits for ten seconds where it came in; the receiver's clock began at another time.
    now_s = 110.0
    sent = pickle.dumps(facts)
    now_s = 5.0
    assert pickle.loads(sent) == RequestFacts("a", Lane.BULK, deadline_s=7.0, trace="t")


def test_a_request_without_a_limit_has_none_elsewhere() -> None:
    assert pickle.loads(pickle.dumps(RequestFacts("a"))) == RequestFacts("a")


def test_messages_survive_a_process_boundary() -> None:
    arrived = pickle.loads(pickle.dumps(_three()))
    assert [item[:5] for item in _seen(arrived)] == [item[:5] for item in _seen(_three())]
    assert (arrived.errors[1].message, arrived.errors[1].extra) == ("too long", {"tokens": 600})
    vectors = pickle.loads(pickle.dumps(_three_vectors()))
    assert vectors.rows(0).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert vectors.errors[1].param == "input[1]"


def test_vector_batch_gives_each_item_its_rows() -> None:
    batch = _three_vectors()
    assert len(batch) == 3
    assert batch.rows(0).shape == (2, 2)
    assert batch.rows(2).shape == (1, 1)
    assert np.shares_memory(batch.rows(0), batch.values)


def test_item_with_an_error_has_no_rows() -> None:
    assert _three_vectors().rows(1).shape == (0, 1)


@pytest.mark.parametrize("items", [[0, 1, 2], [2, 1, 0], [1], [2, 2, 0], []])
def test_selected_vectors_keep_their_rows_and_errors(items: list[int]) -> None:
    batch = _three_vectors()
    chosen = batch.select(items)
    assert _rows(chosen) == [_rows(batch)[item] for item in items]
    assert set(chosen.errors) == {new for new, old in enumerate(items) if old == 1}
    assert chosen.values.dtype == np.float32
    assert chosen.widths.dtype == np.int32
    assert chosen.fingerprint == "mark"
    assert chosen.provenance.spans.tolist() == [[item, item + 0.5] for item in items]


def test_concatenated_vectors_keep_their_rows_and_errors() -> None:
    one, two = _three_vectors(), _vectors([[[9.0, 8.0, 7.0]]])
    whole = VectorBatch.concatenate([one, two, one])
    assert _rows(whole) == _rows(one) + _rows(two) + _rows(one)
    assert set(whole.errors) == {1, 5}
    assert whole.values.dtype == np.float32
    assert whole.widths.dtype == np.int32


def test_concatenated_vectors_count_their_tokens_and_keep_where_each_item_comes_from() -> None:
    one, two = _three_vectors(), _vectors([[[9.0]]])
    two.provenance = Provenance.of(np.asarray([[7.0, 8.0]]), "another build")
    whole = VectorBatch.concatenate([one, two])
    assert whole.encoded_tokens == 14
    assert whole.provenance.spans.tolist() == [[0.0, 0.5], [1.0, 1.5], [2.0, 2.5], [7.0, 8.0]]
    assert [whole.provenance.build_of(item) for item in range(4)] == ["build", "build", "build", "another build"]
    assert whole.provenance.used_builds == ("another build", "build")
    assert whole.select([0, 2]).provenance.used_builds == ("build",)


def test_vectors_that_say_nothing_of_it_come_from_no_engine() -> None:
    batch = VectorBatch("mark", np.zeros(3, dtype=np.float32), offsets_of([1, 2]), np.ones(2, dtype=np.int32))
    assert len(batch.provenance) == 2
    assert np.isnan(batch.provenance.spans).all()
    assert batch.provenance.used_builds == ()
    whole = VectorBatch.concatenate([batch, _vectors([[[9.0]]])])
    assert [whole.provenance.build_of(item) for item in range(3)] == ["", "", "build"]


def test_spans_cross_to_another_machine_as_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now_s": 1_000.0}
    monkeypatch.setattr("cluster.types.provenance.time.monotonic", lambda: clock["now_s"])
    sent = pickle.dumps(Provenance.of(np.asarray([[997.0, 999.5], [np.nan, np.nan]]), "build"))
    clock["now_s"] = 5.0
    arrived = pickle.loads(sent)
    np.testing.assert_array_equal(arrived.spans, [[2.0, 4.5], [np.nan, np.nan]])
    assert [arrived.build_of(item) for item in range(2)] == ["build", ""]

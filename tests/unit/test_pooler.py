from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from cluster.calls import AnswerOptions, Encoding, OutputType
from cluster.pooler import PieceBatch, Pooler, PoolerBatch, finish_rows
from cluster.pooling import cut_dimensions, normalize
from cluster.types import Float32, VectorBatch, offsets_of

WIDTH = 6


def _rows(count: int, seed: int = 1) -> Float32:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def _vectors(parts: Sequence[Float32]) -> VectorBatch:
    return VectorBatch(
        fingerprint="f",
        values=np.concatenate([part.reshape(-1) for part in parts]),
        offsets=offsets_of([part.size for part in parts]),
        widths=np.asarray([part.shape[1] for part in parts], dtype=np.int32),
    )


def _batch(
    parts: Sequence[Float32],
    options: Sequence[AnswerOptions],
    owner: Sequence[int] | None = None,
    matrix: Sequence[bool] | None = None,
    scores: Sequence[bool] | None = None,
) -> PoolerBatch:
    return PoolerBatch(
        vectors=_vectors(parts),
        owner=list(owner or [0] * len(parts)),
        options=list(options),
        matrix=list(matrix or [False] * len(parts)),
        scores=list(scores or [False] * len(parts)),
    )


def _read(piece: bytes) -> np.ndarray:
    return np.asarray(json.loads(piece), dtype=np.float32)


def test_a_vector_has_length_one_unless_the_request_says_otherwise() -> None:
    row = _rows(1)
    assert np.linalg.norm(finish_rows(row, AnswerOptions(), False, False)) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(finish_rows(row, AnswerOptions(normalize=-1), False, False), row)
    np.testing.assert_array_equal(finish_rows(row, AnswerOptions(normalize=1), False, False), normalize(row, 1))


def test_a_token_matrix_stays_as_it_is_unless_the_request_asks() -> None:
    rows = _rows(4)
    np.testing.assert_array_equal(finish_rows(rows, AnswerOptions(), True, False), rows)
    np.testing.assert_array_equal(finish_rows(rows, AnswerOptions(normalize=2), True, False), normalize(rows, 2))


def test_cut_vectors_are_normalised_after_the_cut() -> None:
    row = _rows(1)
    cut = finish_rows(row, AnswerOptions(dimensions=3), False, False)
    np.testing.assert_array_equal(cut, cut_dimensions(row, 3, 2))
    assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dimensions", [WIDTH, WIDTH + 5])
def test_no_fewer_dimensions_than_there_are_change_nothing(dimensions: int) -> None:
    row = _rows(1)
    whole = finish_rows(row, AnswerOptions(), False, False)
    np.testing.assert_array_equal(finish_rows(row, AnswerOptions(dimensions=dimensions), False, False), whole)


def test_a_cut_matrix_keeps_its_rows_as_they_are() -> None:
    rows = _rows(3)
    np.testing.assert_array_equal(finish_rows(rows, AnswerOptions(dimensions=2), True, False), rows[:, :2])


def test_scores_are_neither_normalised_nor_cut() -> None:
    row = np.asarray([[3.5, -1.25, 9.0]], dtype=np.float32)
    np.testing.assert_array_equal(finish_rows(row, AnswerOptions(normalize=2, dimensions=1), False, True), row)


def test_every_item_is_finished_with_the_options_of_its_request() -> None:
    parts = [_rows(1, 1), _rows(3, 2), _rows(1, 3)]
    options = [AnswerOptions(normalize=-1), AnswerOptions(dimensions=2)]
    done = Pooler().finish(_batch(parts, options, owner=[0, 0, 1], matrix=[False, True, False]))
    assert done.shapes == [(WIDTH,), (3, WIDTH), (2,)]
    np.testing.assert_array_equal(_read(done.pieces[0]), parts[0][0])
    np.testing.assert_array_equal(_read(done.pieces[1]), parts[1])
    np.testing.assert_array_equal(_read(done.pieces[2]), cut_dimensions(parts[2], 2, 2)[0])


@pytest.mark.parametrize(("nested", "shape"), [(False, (WIDTH,)), (True, (1, WIDTH))])
def test_llama_servers_shape_has_one_row_more(nested: bool, shape: tuple[int, ...]) -> None:
    done = Pooler().finish(_batch([_rows(1)], [AnswerOptions(nested=nested)]))
    assert _read(done.pieces[0]).shape == shape
    assert done.shapes == [(WIDTH,)]


def test_raw_numbers_are_float32() -> None:
    row = _rows(1)
    done = Pooler().finish(_batch([row], [AnswerOptions(normalize=-1, encoding=Encoding.RAW)]))
    np.testing.assert_array_equal(np.frombuffer(done.pieces[0], dtype="<f4"), row[0])


def test_joined_messages_give_the_same_pieces_as_alone() -> None:
    batches = [
        _batch([_rows(1, 1)], [AnswerOptions()]),
        _batch(
            [_rows(2, 2), _rows(1, 3)], [AnswerOptions(normalize=0), AnswerOptions(dimensions=3)], [0, 1], [True, False]
        ),
        _batch([np.asarray([[2.0]], dtype=np.float32)], [AnswerOptions()], scores=[True]),
    ]
    alone = [Pooler().finish(batch) for batch in batches]
    joined = Pooler().finish(PoolerBatch.concatenate(batches))
    assert joined.pieces == [piece for part in alone for piece in part.pieces]
    assert joined.shapes == [shape for part in alone for shape in part.shapes]


def test_one_message_is_joined_without_a_copy() -> None:
    batch = _batch([_rows(1)], [AnswerOptions()])
    assert PoolerBatch.concatenate([batch]) is batch
    assert len(batch) == 1


def test_a_range_of_pieces_is_picked_with_its_shapes() -> None:
    pieces = PieceBatch([b"a", b"b", b"c"], [(1,), (2,), (3,)])
    picked = pieces.pick(1, 3)
    assert (picked.pieces, picked.shapes) == ([b"b", b"c"], [(2,), (3,)])


@pytest.mark.parametrize(
    ("values", "options", "matrix", "brief"),
    [
        (20_000, AnswerOptions(), False, True),
        (40_000, AnswerOptions(), False, False),
        (40_000, AnswerOptions(encoding=Encoding.RAW), False, False),
        (30_000, AnswerOptions(encoding=Encoding.RAW), True, True),
        (30_000, AnswerOptions(encoding=Encoding.RAW, normalize=-1), True, True),
        (40_000, AnswerOptions(encoding=Encoding.RAW, normalize=2), True, False),
        (40_000, AnswerOptions(encoding=Encoding.RAW, dimensions=2), True, False),
        (40_000, AnswerOptions(encoding=Encoding.RAW, output_type=OutputType.INT8), True, False),
        (40_000, AnswerOptions(encoding=Encoding.BASE64), True, False),
        (6_000_000, AnswerOptions(encoding=Encoding.RAW), True, False),
    ],
)
def test_few_numbers_and_plain_copies_are_brief(values: int, options: AnswerOptions, matrix: bool, brief: bool) -> None:
    rows = np.zeros((values // WIDTH, WIDTH), dtype=np.float32)
    assert _batch([rows], [options], matrix=[matrix]).is_brief is brief


def test_many_small_items_are_not_brief() -> None:
    scores = _batch([np.zeros((1, 1), dtype=np.float32)] * 1_000, [AnswerOptions()], scores=[True] * 1_000)
    assert not scores.is_brief
    one = VectorBatch("f", np.zeros(24_576, dtype=np.float32), offsets_of([24_576]), np.asarray([1], dtype=np.int32))
    assert PoolerBatch(one, [0], [AnswerOptions()], [False], [True]).is_brief


def test_one_item_that_is_no_copy_makes_a_large_message_long() -> None:
    rows, raw = np.zeros((7_000, WIDTH), dtype=np.float32), AnswerOptions(encoding=Encoding.RAW)
    assert _batch([rows, rows], [raw], matrix=[True, True]).is_brief
    assert not _batch([rows, rows], [raw], matrix=[True, False]).is_brief
    assert not _batch([rows, rows], [raw, AnswerOptions()], [0, 1], [True, True]).is_brief

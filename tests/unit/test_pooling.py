from __future__ import annotations

import base64
import json
import math

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from cluster.calls import AnswerOptions, Encoding, OutputType
from cluster.pooling import cut_dimensions, normalize, pool, pool_one, print_rows, quantize
from cluster.types import Float32, PoolingType, offsets_of

_VECTORS = [PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST, PoolingType.WEIGHTED]
_WITHOUT_RANK = [PoolingType.NONE, *_VECTORS]


def _hidden(tokens: int, dimensions: int = 5, seed: int = 3) -> Float32:
    return np.random.default_rng(seed).normal(size=(tokens, dimensions)).astype(np.float32)


def _codes(*poolings: PoolingType) -> np.ndarray:
    return np.asarray([pooling.code for pooling in poolings], dtype=np.uint8)


def _by_definition(rows: Float32, pooling: PoolingType) -> np.ndarray:
    """Each pooling type as its definition has it, number by number, in float64."""
    table = rows.astype(np.float64).tolist()
    columns = list(zip(*table, strict=True))
    if pooling is PoolingType.NONE:
        return np.asarray(table)
    if pooling is PoolingType.CLS:
        return np.asarray(table[0])
    if pooling is PoolingType.LAST:
        return np.asarray(table[-1])
    weights = [1.0] * len(table) if pooling is PoolingType.MEAN else list(range(1, len(table) + 1))
    return np.asarray(
        [math.fsum(w * x for w, x in zip(weights, column, strict=True)) / sum(weights) for column in columns]
    )


@pytest.mark.parametrize("tokens", [1, 2, 9, 700])
@pytest.mark.parametrize("pooling", _WITHOUT_RANK)
def test_one_sequence_is_pooled_as_the_definition_says(pooling: PoolingType, tokens: int) -> None:
    rows = _hidden(tokens)
    pooled = pool_one(rows, pooling)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, _by_definition(rows, pooling), rtol=0, atol=2e-7)


@pytest.mark.parametrize("pooling", _VECTORS)
def test_a_single_token_is_its_own_vector(pooling: PoolingType) -> None:
    rows = _hidden(1)
    np.testing.assert_array_equal(pool_one(rows, pooling), rows[0])


def test_weighted_prefers_later_tokens_and_mean_does_not() -> None:
    rows = np.asarray([[0.0], [0.0], [3.0]], dtype=np.float32)
    assert pool_one(rows, PoolingType.MEAN).tolist() == [1.0]
    assert pool_one(rows, PoolingType.WEIGHTED).tolist() == [1.5]


def test_every_item_of_a_batch_gets_its_own_pooling_type() -> None:
    lengths = [3, 1, 4, 2, 5]
    hidden = _hidden(sum(lengths))
    offsets = offsets_of(lengths)
    values, value_offsets, widths = pool(hidden, offsets, _codes(*_WITHOUT_RANK))
    assert values.dtype == np.float32
    assert widths.tolist() == [5] * 5
    assert np.diff(value_offsets).tolist() == [3 * 5, 5, 5, 5, 5]
    for item, pooling in enumerate(_WITHOUT_RANK):
        alone = pool_one(hidden[offsets[item] : offsets[item + 1]], pooling)
        np.testing.assert_array_equal(values[value_offsets[item] : value_offsets[item + 1]], alone.reshape(-1))


def test_token_matrices_alone_are_passed_on_uncopied() -> None:
    hidden = _hidden(6)
    values, value_offsets, _ = pool(hidden, offsets_of([2, 4]), _codes(PoolingType.NONE, PoolingType.NONE))
    assert np.shares_memory(values, hidden)
    assert value_offsets.tolist() == [0, 10, 30]


def test_rank_is_not_pooled_from_hidden_states() -> None:
    with pytest.raises(ValueError, match="classification head"):
        pool(_hidden(3), offsets_of([1, 2]), _codes(PoolingType.MEAN, PoolingType.RANK))


def _llama_normalize(row: list[float], p: int) -> list[float]:
    """llama.cpp's ``common_embd_normalize``, in its own order of operations."""
    if p == -1:
        total = 1.0
    elif p == 0:
        total = max(abs(x) for x in row) / 32760.0
    elif p == 2:
        total = math.sqrt(sum(x * x for x in row))
    else:
        total = sum(abs(x) ** p for x in row) ** (1.0 / p)
    factor = 1.0 / total if total > 0 else 0.0
    return [x * factor for x in row]


@pytest.mark.parametrize("p", [-1, 0, 1, 2, 3, 5, 6])
def test_normalisation_is_that_of_llama_cpp(p: int) -> None:
    rows = np.concatenate([_hidden(20, 7), np.zeros((1, 7), dtype=np.float32), 1e-3 * _hidden(3, 7)])
    expected = [_llama_normalize(row, p) for row in rows.astype(np.float64).tolist()]
    result = normalize(rows, p)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.asarray(expected), rtol=2e-7, atol=0)


@pytest.mark.parametrize("p", [0, 1, 2, 3, 1000])
def test_a_zero_vector_stays_zero(p: int) -> None:
    assert normalize(np.zeros((2, 4), dtype=np.float32), p).tolist() == [[0.0] * 4] * 2


@pytest.mark.parametrize("p", [3.0, 50.0, 1000.0])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_large_power_neither_overflows_nor_vanishes(p: float, scale: float) -> None:
    result = normalize((np.asarray([[3.0, -4.0, 4.0]]) * scale).astype(np.float32), p)
    largest = 2.0 ** (-1.0 / p) if p > 3 else (27 / 64 + 2) ** (-1 / 3)
    np.testing.assert_allclose(np.abs(result).max(), largest, rtol=1e-3)


def test_normalising_leaves_the_rows_it_was_given() -> None:
    rows = _hidden(4)
    before = rows.copy()
    normalize(rows, 2)
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("p", [-1, 2])
def test_cutting_keeps_the_first_dimensions_and_normalises_again(p: float) -> None:
    rows = normalize(_hidden(4, 8), 2)
    cut = cut_dimensions(rows, 3, p)
    assert cut.shape == (4, 3)
    np.testing.assert_array_equal(cut, normalize(rows[:, :3].copy(), p))
    if p == 2:
        np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1.0, atol=1e-6)


def test_small_integers_round_and_clip() -> None:
    rows = np.asarray([[-2.0, -1.0, -0.004, 0.0, 0.5, 1.0, 7.0]], dtype=np.float32)
    signed = quantize(rows, OutputType.INT8)
    assert signed.dtype == np.int8
    assert signed.tolist() == [[-127, -127, -1, 0, 64, 127, 127]]
    unsigned = quantize(rows, OutputType.UINT8)
    assert unsigned.dtype == np.uint8
    assert unsigned.tolist() == [[1, 1, 127, 128, 192, 255, 255]]


def test_bits_are_packed_from_the_most_significant_and_set_for_what_is_above_zero() -> None:
    rows = np.asarray([[1.0, -1.0, 0.0, -0.0, np.nan, 1e-30, -1.0, 2.0, 3.0]], dtype=np.float32)
    packed = quantize(rows, OutputType.UBINARY)
    assert packed.dtype == np.uint8
    assert packed.tolist() == [[0b10000101, 0b10000000]]
    signed = quantize(rows, OutputType.BINARY)
    assert signed.dtype == np.int8
    assert signed.tolist() == [[0b10000101 - 128, 0]]


def test_binary_vectors_are_those_of_other_libraries() -> None:
    row = np.asarray([[-0.0396, 0.0062, -0.0745, -0.0390, 0.0046, 0.0003, -0.0850, 0.0399]], dtype=np.float32)
    assert quantize(row, OutputType.UBINARY).tolist() == [[77]]
    assert quantize(row, OutputType.BINARY).tolist() == [[-51]]
    assert quantize(np.zeros((1, 8), dtype=np.float32), OutputType.UBINARY).tolist() == [[0]]


def test_json_gives_the_same_float32_back() -> None:
    rows = np.concatenate([_hidden(50, 16) * 10.0**power for power in (-30, -3, 0, 8)])
    printed = print_rows(rows, AnswerOptions())
    np.testing.assert_array_equal(np.asarray(json.loads(printed), dtype=np.float32), rows)


@pytest.mark.parametrize(
    ("output_type", "dtype"),
    [(OutputType.FLOAT, "<f4"), (OutputType.INT8, "i1"), (OutputType.UINT8, "u1"), (OutputType.UBINARY, "u1")],
)
def test_base64_and_raw_are_the_same_little_endian_bytes(output_type: OutputType, dtype: str) -> None:
    rows = normalize(_hidden(3, 16), 2)
    raw = print_rows(rows, AnswerOptions(encoding=Encoding.RAW, output_type=output_type))
    printed = print_rows(rows, AnswerOptions(encoding=Encoding.BASE64, output_type=output_type))
    assert base64.b64decode(printed, validate=True) == raw
    np.testing.assert_array_equal(np.frombuffer(raw, dtype=dtype).reshape(3, -1), quantize(rows, output_type))


def test_rows_that_are_not_contiguous_are_printed_all_the_same() -> None:
    rows = _hidden(4, 8)[:, ::2]
    np.testing.assert_array_equal(np.asarray(json.loads(print_rows(rows, AnswerOptions())), dtype=np.float32), rows)


@pytest.mark.parametrize("shape", [(40_000,), (1, 40_000), (3, 20_000), (700, 50), (16_384,), (16_385,)])
def test_what_is_printed_in_blocks_is_printed_as_in_one(shape: tuple[int, ...]) -> None:
    rows = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    whole = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)
    assert print_rows(rows, AnswerOptions()) == whole
    assert print_rows(rows, AnswerOptions(encoding=Encoding.RAW)) == rows.tobytes()
    assert print_rows(rows, AnswerOptions(encoding=Encoding.BASE64)) == base64.b64encode(rows.tobytes())


def test_no_single_call_prints_more_than_an_event_loop_can_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    dumps = orjson.dumps

    def watched(values: NDArray[np.generic], option: int) -> bytes:
        sizes.append(values.size)
        return dumps(values, option=option)

    monkeypatch.setattr("cluster.pooling.orjson.dumps", watched)
    for shape in ((100_000,), (1, 100_000), (2_000, 50)):
        print_rows(np.zeros(shape, dtype=np.float32), AnswerOptions())
    assert len(sizes) > 15
    assert max(sizes) <= 20_000

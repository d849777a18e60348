from __future__ import annotations

import io

import numpy as np
import pytest

from cluster.api.matrix import format_npy
from cluster.calls import AnswerOptions, EmbedAnswer, Encoding, OutputType
from cluster.pooling import print_rows, quantize
from cluster.types import Float32, PoolingType


def _printed(answer: EmbedAnswer, output_type: OutputType) -> tuple[bytes, dict[str, str]]:
    pieces, headers = format_npy(answer, output_type)
    return b"".join(pieces), headers


def _answer(items: list[Float32], output_type: OutputType = OutputType.FLOAT) -> EmbedAnswer:
    options = AnswerOptions(encoding=Encoding.RAW, output_type=output_type)
    return EmbedAnswer(
        model="m",
        pooling=PoolingType.NONE,
        fingerprint="f",
        pieces=[print_rows(item, options) for item in items],
        shapes=[item.shape for item in items],
        tokens=[10 + index for index in range(len(items))],
        cut_tokens=list(range(len(items))),
    )


def _numbers(*shape: int) -> Float32:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def test_vectors_are_one_array() -> None:
    items = [_numbers(16), _numbers(16) + 1]
    content, headers = _printed(_answer(items), OutputType.FLOAT)
    rows = np.load(io.BytesIO(content))
    assert rows.dtype == np.float32
    assert np.array_equal(rows, np.stack(items))
    assert headers == {"x-poolhouse-offsets": "0,1,2"}


def test_token_matrices_are_cut_apart_by_the_offsets() -> None:
    items = [_numbers(3, 16), _numbers(1, 16), _numbers(5, 16)]
    content, headers = _printed(_answer(items), OutputType.FLOAT)
    rows = np.load(io.BytesIO(content))
    assert headers == {"x-poolhouse-offsets": "0,3,4,9"}
    for index, item in enumerate(items):
        begin, end = [0, 3, 4, 9][index : index + 2]
        assert np.array_equal(rows[begin:end], item)


def test_offsets_and_token_counts_follow_the_rows() -> None:
    content, _ = _printed(_answer([_numbers(3, 16), _numbers(2, 16)]), OutputType.FLOAT)
    stream = io.BytesIO(content)
    rows, offsets, tokens, cut = (np.load(stream) for _ in range(4))
    assert rows.shape == (5, 16)
    assert (offsets.tolist(), tokens.tolist(), cut.tolist()) == ([0, 3, 5], [10, 11], [0, 1])
    assert stream.read() == b""


@pytest.mark.parametrize("output_type", list(OutputType))
def test_every_output_type_keeps_its_dtype_and_width(output_type: OutputType) -> None:
    vector = np.clip(_numbers(12), -1, 1)
    content, _ = _printed(_answer([vector], output_type), output_type)
    rows = np.load(io.BytesIO(content))
    assert np.array_equal(rows, quantize(vector, output_type)[None])


def test_offsets_that_no_header_can_hold_are_in_the_body_alone() -> None:
    content, headers = _printed(_answer([_numbers(1)] * 5_000), OutputType.FLOAT)
    assert headers == {}
    stream = io.BytesIO(content)
    np.load(stream)
    assert np.load(stream).tolist() == list(range(5_001))

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.errors import ModelLoadError
from cluster.models.token_table import TokenTable, read_token_types

ROWS, WIDTH = 300, 64
F32, F16, BF16, Q8_0 = (gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "Q8_0"))


def _write(path: Path, kind: gguf.GGMLQuantizationType, name: str = "token_embd.weight") -> NDArray[np.float32]:
    """Write a table and return the values that its rows stand for."""
    values = np.random.default_rng(3).normal(size=(ROWS, WIDTH)).astype(np.float32)
    stored = gguf.quants.quantize(values, kind)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_tensor("first.weight", np.ones(5, dtype=np.float32))
    writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    exact: NDArray[np.float32] = gguf.quants.dequantize(stored, kind)
    return exact


@pytest.mark.parametrize("kind", [F32, F16, BF16, Q8_0], ids=lambda kind: kind.name)
def test_rows_are_the_file_s_to_the_bit(tmp_path: Path, kind: gguf.GGMLQuantizationType) -> None:
    exact = _write(tmp_path / "m.gguf", kind)
    table = TokenTable(tmp_path / "m.gguf")
    ids = np.array([0, ROWS - 1, 7, 7, 123], dtype=np.int32)
    rows = table.rows(ids)
    assert (table.size, table.width) == (ROWS, WIDTH)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, exact[ids])


def test_rows_are_scaled_for_graphs_that_scale_ids(tmp_path: Path) -> None:
    exact = _write(tmp_path / "m.gguf", F16)
    rows = TokenTable(tmp_path / "m.gguf", input_scale=8.0).rows(np.array([5], dtype=np.int32))
    np.testing.assert_array_equal(rows, exact[[5]] * np.float32(8))


def test_values_that_numpy_cannot_read_are_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "bert")
    writer.add_tensor("token_embd.weight", np.ones((4, 32), dtype=np.float64))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match="as F64, which cannot be read here"):
        TokenTable(tmp_path / "m.gguf")


def test_file_without_a_table_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "m.gguf", F32, "patch_embd.weight")
    with pytest.raises(ModelLoadError, match=r"no tensor token_embd\.weight"):
        TokenTable(tmp_path / "m.gguf")


def test_token_types_are_read_whole_or_are_none(tmp_path: Path) -> None:
    exact = _write(tmp_path / "m.gguf", F32, "token_types.weight")
    read = read_token_types(tmp_path / "m.gguf")
    assert read is not None
    np.testing.assert_array_equal(read, exact)
    _write(tmp_path / "plain.gguf", F32)
    assert read_token_types(tmp_path / "plain.gguf") is None

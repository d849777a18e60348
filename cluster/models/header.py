"""The head of a GGUF: its metadata and the names and shapes of its tensors, without the vocabulary and the weights.

The ``gguf`` library's reader makes several NumPy views for every entry of the vocabulary (1.2 s for 30,522 entries); here
the vocabulary is stepped over and only its length is kept. The layout is the GGUF specification's, versions 2 and 3:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from cluster.errors import ModelLoadError

_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# Codes of the specification, and how each is laid out.
_SCALARS = {
    code: struct.Struct(f"<{layout}")
    for code, layout in {
        0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
    }.items()
}  # fmt: skip
_UINT32, _UINT64 = _SCALARS[4], _SCALARS[10]
_VOCABULARY = "tokenizer.ggml."
_DEFAULT_ALIGNMENT = 32
_MAX_TENSOR_AXES = 4


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies.

    Attributes:
        shape: slowest axis first as in NumPy.
        kind: how its values are stored.
        begin: of its first byte in the file.
        size_bytes: without padding.
    """

    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    begin: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What stands before the weights.

    Attributes:
        metadata: key → value; arrays are lists. The vocabulary's arrays are not here.
        array_lengths: key → number of entries, of every array.
        spans: key → first byte and end of the pair in the file, key and type included.
        tensors: name → where it lies, in the file's order.
        alignment: every tensor begins at a multiple of so many bytes.
    """

    metadata: dict[str, Any]
    array_lengths: dict[str, int]
    spans: dict[str, tuple[int, int]]
    tensors: dict[str, TensorEntry]
    alignment: int


def read_header(path: Path) -> GgufHeader:
    """Read the head of a GGUF and check that all its tensors lie within the file.

    Raises:
        ModelLoadError: it is no GGUF, is of an unknown version or byte order, or is cut short.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).read()
    except ValueError as error:
        # An empty file cannot be mapped, which is a ValueError too.
        raise ModelLoadError(f"{path} is not a whole GGUF file: {error}; fetch or convert it again") from error
    except (struct.error, OverflowError) as error:
        raise ModelLoadError(f"{path} is not a whole GGUF file: it is cut short; fetch or convert it again") from error
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror or error}") from error


def begin_gguf(tensors: int, pairs: list[bytes]) -> bytes:
    """Return what a GGUF begins with: magic, version, numbers of tensors and of pairs, and the pairs."""
    return b"GGUF" + struct.pack("<IQQ", _VERSIONS[-1], tensors, len(pairs)) + b"".join(pairs)


class _Reader:
    """Steps through the bytes once, front to back."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self._at = 0
        self._metadata: dict[str, Any] = {}
        self._lengths: dict[str, int] = {}
        self._spans: dict[str, tuple[int, int]] = {}

    def read(self) -> GgufHeader:
        magic = self._take(4)
        if magic != b"GGUF":
            raise ValueError(f"it begins with {magic!r} and not with b'GGUF'")
        version = self._number(_UINT32)
        if version not in _VERSIONS:
            order = "big-endian" if version & 0xFFFF == 0 else f"version {version}"
            raise ValueError(f"it is {order}; little-endian versions 2 and 3 can be read")
        tensors, keys = self._number(_UINT64), self._number(_UINT64)
        for _ in range(keys):
            begin = self._at
            key = self._string()
            if key in self._spans:
                raise ValueError(f"the key {key!r} stands in it twice")
            self._read_value(key)
            self._spans[key] = (begin, self._at)
        alignment = int(self._metadata.get("general.alignment", _DEFAULT_ALIGNMENT)) or _DEFAULT_ALIGNMENT
        return GgufHeader(self._metadata, self._lengths, self._spans, self._read_tensors(tensors, alignment), alignment)

    def _read_value(self, key: str) -> None:
        code = self._number(_UINT32)
        if code != _ARRAY:
            self._metadata[key] = self._value(code)
            return
        element, length = self._number(_UINT32), self._number(_UINT64)
        self._lengths[key] = length
        if key.startswith(_VOCABULARY):
            self._skip_array(element, length)
        else:
            self._metadata[key] = [self._value(element) for _ in range(length)]

    def _skip_array(self, element: int, length: int) -> None:
        if element != _STRING:
            self._skip(length * self._layout(element).size)
            return
        unpack, data, at = _UINT64.unpack_from, self._data, self._at
        for _ in range(length):
            at += 8 + unpack(data, at)[0]
        self._at = at
        self._skip(0)

    def _read_tensors(self, count: int, alignment: int) -> dict[str, TensorEntry]:
        found: dict[str, tuple[tuple[int, ...], gguf.GGMLQuantizationType, int, int]] = {}
        for _ in range(count):
            name = self._string()
            axes = self._number(_UINT32)
            if axes > _MAX_TENSOR_AXES:
                raise ValueError(f"the tensor {name!r} has {axes} axes")
            shape = tuple(self._number(_UINT64) for _ in range(axes))
            kind = gguf.GGMLQuantizationType(self._number(_UINT32))
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            size_bytes = math.prod(shape) // block * block_bytes
            found[name] = (shape[::-1], kind, self._number(_UINT64), size_bytes)
        first_byte = -(-self._at // alignment) * alignment
        tensors = {
            name: TensorEntry(shape, kind, first_byte + offset, size_bytes)
            for name, (shape, kind, offset, size_bytes) in found.items()
        }
        needed = max((entry.begin + entry.size_bytes for entry in tensors.values()), default=self._at)
        if needed > self._size:
            raise ValueError(f"its tensors end at byte {needed:,} and the file at byte {self._size:,}")
        return tensors

    def _value(self, code: int) -> Any:
        return self._string() if code == _STRING else self._number(self._layout(code))

    def _string(self) -> str:
        return self._take(self._number(_UINT64)).decode("utf-8", "replace")

    def _number(self, layout: struct.Struct) -> Any:
        value = layout.unpack_from(self._data, self._at)[0]
        self._at += layout.size
        return value

    def _take(self, length: int) -> bytes:
        begin = self._at
        self._skip(length)
        return self._data[begin : self._at]

    def _skip(self, length: int) -> None:
        self._at += length
        if self._at > self._size:
            raise ValueError(f"it is cut short at byte {self._size:,}")

    @staticmethod
    def _layout(code: int) -> struct.Struct:
        if code not in _SCALARS:
            raise ValueError(f"it holds a value of the unknown type {code}")
        return _SCALARS[code]

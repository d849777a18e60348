"""What all small models share: seeded tensors, the file they are written to, and the reference's interface."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from tests.support.ggufs.numerics import Float64

Ids = Sequence[int]

# llama.cpp's conversions keep these in float32 whatever the file type.
_ALWAYS_FLOAT32 = ("position_embd.weight", "token_types.weight")


@dataclass(frozen=True)
class ReferenceModel(abc.ABC):
    """A written GGUF and its forward pass.

    Attributes:
        path: the GGUF.
        weights: tensor name → float64 of the very values in the file (rounded to float16 where the file is).
        labels: names of the head's outputs; empty without a head.
    """

    path: Path
    weights: Mapping[str, Float64]
    labels: tuple[str, ...] = ()

    @property
    def dimensions(self) -> int:
        """Width of a hidden state."""
        return int(self.weights["token_embd.weight"].shape[1])

    @property
    def vocabulary_size(self) -> int:
        """Valid ids are ``0 … vocabulary_size - 1``."""
        return int(self.weights["token_embd.weight"].shape[0])

    @abc.abstractmethod
    def hidden(self, ids: Ids, token_types: Ids | None = None) -> Float64:
        """Return one sequence's hidden states after the final norm, float64 ``[n_tokens, dimensions]``.

        Args:
            token_types: of each token, for models that have them; None is all 0.
        """

    def score(self, ids: Ids, token_types: Ids | None = None) -> Float64:
        """Return the head's outputs as llama.cpp's rank graph ends, float64 ``[n_labels]``."""
        raise TypeError(f"{self.path.name} has no head")

    def project(self, name: str, x: Float64) -> Float64:
        """Apply the linear layer ``name`` and its bias, if it has one, to the last axis."""
        y: Float64 = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias


class Tensors:
    """Seeded random tensors by their GGUF names, as float32."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.named: dict[str, np.ndarray] = {}

    def table(self, name: str, rows: int, columns: int, deviation: float) -> None:
        """A look-up table with entries of this standard deviation."""
        self.named[f"{name}.weight"] = self._normal((rows, columns), deviation)

    def linear(self, name: str, outputs: int, inputs: int, *, gain: float = 1.0, bias: bool = False) -> None:
        """A linear layer that turns inputs of unit variance into outputs of standard deviation ``gain``."""
        self.named[f"{name}.weight"] = self._normal((outputs, inputs), gain / np.sqrt(inputs))
        if bias:
            self.named[f"{name}.bias"] = self._normal((outputs,), 0.1)

    def norm(self, name: str, width: int, *, bias: bool = False) -> None:
        """A norm's weight near 1, and its bias near 0."""
        self.named[f"{name}.weight"] = 1.0 + self._normal((width,), 0.1)
        if bias:
            self.named[f"{name}.bias"] = self._normal((width,), 0.1)

    def _normal(self, shape: tuple[int, ...], deviation: float) -> np.ndarray:
        return self._random.normal(0.0, deviation, shape).astype(np.float32)


def write_gguf(
    path: Path,
    architecture: str,
    tensors: Tensors,
    *describe: Callable[[gguf.GGUFWriter], None],
    half: bool = False,
) -> dict[str, Float64]:
    """Write the file and return its tensors' values.

    Args:
        describe: each adds metadata (hyper-parameters, vocabulary).
        half: matrices in float16, as ``--outtype f16`` writes them. llama.cpp then rounds what it multiplies with them
            to float16 too, which the references do not: hidden states of unit variance differ by up to 0.006.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
    for add in describe:
        add(writer)
    weights: dict[str, Float64] = {}
    for name, tensor in tensors.named.items():
        stored = tensor.astype(np.float16) if half and tensor.ndim == 2 and name not in _ALWAYS_FLOAT32 else tensor
        writer.add_tensor(name, stored)
        weights[name] = stored.astype(np.float64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights

"""How large inputs are before they are tokenized: characters, which become some number of tokens, and ids, which are as many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from cluster.calls import Input
from cluster.types import Int64


@dataclass(frozen=True, slots=True, eq=False)
class InputSizes:
    """Int64 ``[n]`` characters of the inputs' texts, and int64 ``[n]`` token ids among them; a mixed input has both."""

    characters: Int64
    ids: Int64

    @property
    def weight(self) -> int:
        """Characters and ids in all, a cheap stand-in for the work."""
        return int(self.characters.sum() + self.ids.sum())

    @staticmethod
    def concatenate(parts: Sequence[InputSizes]) -> InputSizes:
        """Of the inputs of all, in order."""
        return InputSizes(
            np.concatenate([part.characters for part in parts]), np.concatenate([part.ids for part in parts])
        )


def sizes_of(inputs: Sequence[Input]) -> InputSizes:
    """Measure inputs: texts, token ids, and mixed ones."""
    kinds = set(map(type, inputs))
    if kinds <= {str, np.ndarray}:
        lengths = np.fromiter(map(len, inputs), dtype=np.int64, count=len(inputs))
        texts = np.fromiter(map(isinstance, inputs, repeat(str)), dtype=np.bool_, count=len(inputs))
        return InputSizes(np.where(texts, lengths, 0), np.where(texts, 0, lengths))
    pairs = np.asarray([_size_of(item) for item in inputs], dtype=np.int64).reshape(-1, 2)
    return InputSizes(pairs[:, 0], pairs[:, 1])


def _size_of(item: Input) -> tuple[int, int]:
    if isinstance(item, str):
        return len(item), 0
    if isinstance(item, np.ndarray):
        return 0, len(item)
    try:
        # Only numbers have a sum. It is the fastest look at them: a million ids take 8 ms, and their types 30.
        sum(item)  # type: ignore[arg-type]
    except TypeError:
        pass
    else:
        return 0, len(item)
    texts = [part for part in item if isinstance(part, str)]
    return sum(map(len, texts)), len(item) - len(texts)

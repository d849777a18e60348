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
    characters, ids = [0] * len(inputs), [0] * len(inputs)
    for index, item in enumerate(inputs):
        if isinstance(item, str):
            characters[index] = len(item)
        elif isinstance(item, np.ndarray):
            ids[index] = len(item)
        else:
            own = [len(part) for part in item if isinstance(part, str)]
            characters[index], ids[index] = sum(own), len(item) - len(own)
    return InputSizes(np.asarray(characters, dtype=np.int64), np.asarray(ids, dtype=np.int64))

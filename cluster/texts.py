"""The message to the Tokenizer: packed texts, and how each request wants its own tokenized."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.calls import Input
from cluster.config import Truncate
from cluster.input_sizes import InputSizes, sizes_of
from cluster.pairs import Pair
from cluster.types import PoolingType, RequestFacts


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How the texts of one request become tokens.

    Attributes:
        content_tokens: each text is cut to so many tokens of its own.
        pair: each text is the second one of a pair.
    """

    pooling: PoolingType
    truncate: Truncate = Truncate.NONE
    prompt: str = ""
    parse_special: bool = False
    content_tokens: int | None = None
    pair: Pair | None = None


@dataclass(slots=True)
class TextBatch:
    """Texts of one model, the message to the Tokenizer.

    Attributes:
        owner: item → index into ``options`` and ``requests``, which have one entry for each HTTP request.
        measured: see ``sizes``.
    """

    model: str
    inputs: list[Input]
    owner: list[int]
    options: list[TextOptions]
    requests: list[RequestFacts]
    measured: InputSizes | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def sizes(self) -> InputSizes:
        """Of the inputs, without the first texts of pairs; measured once."""
        if self.measured is None:
            self.measured = sizes_of(self.inputs)
        return self.measured

    @property
    def weight(self) -> int:
        """Characters and ids in all, a cheap stand-in for the work; each item has what stands before it too."""
        own = self.sizes.weight
        # By map and not one by one: an event loop waits for it, and a request may have options for each item.
        firsts = map(len, [each.prompt if each.pair is None else each.pair.query for each in self.options])
        more = map(len, ["" if each.pair is None else each.pair.instruction or "" for each in self.options])
        before = list(map(operator.add, firsts, more))
        return own + sum(map(before.__getitem__, self.owner)) if any(before) else own

    def part(self, begin: int, end: int) -> TextBatch:
        """The items ``[begin, end)``."""
        return TextBatch(self.model, self.inputs[begin:end], self.owner[begin:end], self.options, self.requests)

    @property
    def cost_s(self) -> float:
        """CPU time that tokenizing them takes, about."""
        return tokenizing_s(self.inputs, self.weight)

    @staticmethod
    def concatenate(batches: Sequence[TextBatch]) -> TextBatch:
        """Return one message with the items of all; they must be of one model."""
        if len(batches) == 1:
            return batches[0]
        joined = TextBatch(batches[0].model, [], [], [], [])
        for batch in batches:
            first_request = len(joined.requests)
            joined.inputs.extend(batch.inputs)
            joined.owner.extend(first_request + owner for owner in batch.owner)
            joined.options.extend(batch.options)
            joined.requests.extend(batch.requests)
        joined.measured = InputSizes.concatenate([batch.sizes for batch in batches])
        return joined


def tokenizing_s(inputs: Sequence[Input], weight: int) -> float:
    """CPU time that tokenizing inputs of so many characters and ids together takes, about."""
    parts = sum(len(item) for item in inputs if isinstance(item, list) and str in set(map(type, item)))
    return 1e-5 * (len(inputs) + parts) + 2.5e-7 * weight

"""How many tokens a request will be, before the tokenizer has counted them; and what its counts teach for the next one.

Two measures: token ids are exactly as many tokens, and so are the special tokens and the template around a text; characters
become tokens by a ratio, which learns from texts alone, uncut and without what stands around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.admission import Admission
from cluster.texts import TextBatch, TextOptions
from cluster.types import Float64, Int64, ModelDescription, TokenBatch


def estimate_tokens(admission: Admission, texts: TextBatch, model: ModelDescription) -> int:
    """Return how many tokens will probably be encoded for a request: none of its items has more than may be left of it."""
    around = _Around.of(texts.options, model)
    known, before = around.of_items(texts)
    own_tokens = around.own_tokens + around.known + admission.tokens_of(texts.model, around.before)
    caps = np.fmin(model.max_tokens, np.fmin(around.most_tokens, own_tokens))
    return admission.estimate_tokens(
        texts.model, texts.sizes.characters + before, texts.sizes.ids + known, caps[_owner(texts)]
    )


def learn_ratio(admission: Admission, texts: TextBatch, tokens: TokenBatch, model: ModelDescription) -> None:
    """Take in what the texts of a request turned out to be."""
    known, before = _Around.of(texts.options, model).of_items(texts)
    sizes = texts.sizes
    learned = (sizes.ids == 0) & (sizes.characters > 0)
    learned[list(tokens.errors)] = False
    counted = tokens.lengths + tokens.cut_tokens - known
    admission.learn_ratio(
        texts.model, int((sizes.characters + before)[learned].sum()), int(np.maximum(counted, 0)[learned].sum())
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Around:
    """What each of a request's options sets around a text, and what it leaves of one; there may be one for each text.

    Attributes:
        known: int64 ``[m]``, tokens around the text.
        before: int64 ``[m]``, characters of the prompt or the pair's first text.
        own_tokens: float64 ``[m]``, what the text alone is cut to; NaN where it is not.
        most_tokens: float64 ``[m]``, what the whole is cut to below the model's limit; NaN where it is not.
    """

    known: Int64
    before: Int64
    own_tokens: Float64
    most_tokens: Float64

    @classmethod
    def of(cls, options: Sequence[TextOptions], model: ModelDescription) -> _Around:
        """Measure options, field by field: an event loop waits for it."""
        pairs = [each.pair for each in options if each.pair is not None]
        singles = options if not pairs else [each for each in options if each.pair is None]
        is_pair = np.asarray([each.pair is not None for each in options], dtype=np.bool_)
        before = np.zeros(len(options), dtype=np.int64)
        own_tokens, most_tokens = np.full((2, len(options)), np.nan)
        before[~is_pair] = _lengths([each.prompt for each in singles])
        before[is_pair] = _lengths([pair.query for pair in pairs])
        before[is_pair] += _lengths([pair.instruction or "" for pair in pairs])
        # None becomes NaN.
        own_tokens[~is_pair] = np.asarray([each.content_tokens for each in singles], dtype=np.float64)
        own_tokens[is_pair] = np.asarray([pair.document_tokens for pair in pairs], dtype=np.float64)
        most_tokens[is_pair] = np.asarray([pair.max_tokens for pair in pairs], dtype=np.float64)
        return cls(np.where(is_pair, model.pair_tokens, model.special_tokens), before, own_tokens, most_tokens)

    def of_items(self, texts: TextBatch) -> tuple[Int64, Int64]:
        """Of each item, int64 ``[n]``: the tokens set around it, and the characters of the prompt or the pair's first text."""
        owner = _owner(texts)
        # Nothing is set around ids, and no prompt before them.
        sizes = texts.sizes
        return (
            np.where(sizes.characters > 0, self.known[owner], 0),
            np.where(sizes.ids == 0, self.before[owner], 0),
        )


def _lengths(texts: Sequence[str]) -> Int64:
    return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))


def _owner(texts: TextBatch) -> Int64:
    if len(texts.options) == 1:
        return np.zeros(len(texts), dtype=np.int64)
    return np.asarray(texts.owner, dtype=np.int64)

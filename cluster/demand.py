"""How many tokens a request will be, before the tokenizer has counted them; and what its counts teach for the next one.

Two measures: token ids are exactly as many tokens, and so are the special tokens and the template around a text; characters
become tokens by a ratio, which learns from texts alone, uncut and without what stands around them.
"""

from __future__ import annotations

import numpy as np

from cluster.admission import Admission
from cluster.texts import TextBatch, TextOptions
from cluster.types import Int64, ModelDescription, TokenBatch


def estimate_tokens(admission: Admission, texts: TextBatch, model: ModelDescription) -> int:
    """Return how many tokens will probably be encoded for a request: none of its items has more than may be left of it."""
    known, before = _around(texts, model)
    caps = np.asarray([_most_tokens(admission, texts.model, options, model) for options in texts.options])
    return admission.estimate_tokens(
        texts.model, texts.sizes.characters + before, texts.sizes.ids + known, caps[_owner(texts)]
    )


def learn_ratio(admission: Admission, texts: TextBatch, tokens: TokenBatch, model: ModelDescription) -> None:
    """Take in what the texts of a request turned out to be."""
    known, before = _around(texts, model)
    sizes = texts.sizes
    learned = (sizes.ids == 0) & (sizes.characters > 0)
    learned[list(tokens.errors)] = False
    counted = tokens.lengths + tokens.cut_tokens - known
    admission.learn_ratio(
        texts.model, int((sizes.characters + before)[learned].sum()), int(np.maximum(counted, 0)[learned].sum())
    )


def _around(texts: TextBatch, model: ModelDescription) -> tuple[Int64, Int64]:
    """Of each item, int64 ``[n]``: the tokens set around it, and the characters of the prompt or the pair's first text."""
    owner = _owner(texts)
    known = np.asarray(
        [model.special_tokens if options.pair is None else model.pair_tokens for options in texts.options]
    )[owner]
    before = np.asarray([len(_first_text(options)) for options in texts.options])[owner]
    # Nothing is set around ids, and no prompt before them.
    sizes = texts.sizes
    return np.where(sizes.characters > 0, known, 0), np.where(sizes.ids == 0, before, 0)


def _owner(texts: TextBatch) -> Int64:
    if len(texts.options) == 1:
        return np.zeros(len(texts), dtype=np.int64)
    return np.asarray(texts.owner, dtype=np.int64)


def _first_text(options: TextOptions) -> str:
    return options.prompt if options.pair is None else options.pair.query + (options.pair.instruction or "")


def _most_tokens(admission: Admission, name: str, options: TextOptions, model: ModelDescription) -> int:
    """The most tokens that truncation leaves of an item, or that it may have where nothing is cut."""
    pair = options.pair
    around = model.special_tokens if pair is None else model.pair_tokens
    own = options.content_tokens if pair is None else pair.document_tokens
    caps = [model.max_tokens, None if pair is None else pair.max_tokens]
    if own is not None:
        caps.append(own + around + admission.estimate_tokens(name, len(_first_text(options))))
    return min(cap for cap in caps if cap is not None)

"""Pairs by a GGUF's flags: ``[BOS] query [EOS] [SEP] document [EOS]``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.config import Truncate
from cluster.engine.protocol import Vocabulary
from cluster.pairs.pair import BegunPair, Pair, PairIds, check_cap, check_truncation, no_instruction, query_too_long
from cluster.types import Int32


class FlagFormat:
    """``[BOS] query [EOS] [SEP] document [EOS]``; where there is no EOS, SEP stands for it."""

    def __init__(self, vocabulary: Vocabulary, max_tokens: int, add_eos: bool) -> None:
        end = vocabulary.eos if vocabulary.eos >= 0 else vocabulary.sep
        self._vocabulary = vocabulary
        self._max_tokens = max_tokens
        self._before = _specials(vocabulary.bos if vocabulary.add_bos else -1)
        self._between = _specials(end if add_eos else -1, vocabulary.sep if vocabulary.add_sep else -1)
        self._after = _specials(end if add_eos else -1)

    @property
    def least_tokens(self) -> int:
        """See ``PairFormat.least_tokens``."""
        return len(self._before) + len(self._between) + len(self._after) + 1

    def begin(self, pair: Pair) -> BegunPair:
        """See ``PairFormat.begin``."""
        if pair.instruction is not None:
            raise no_instruction()
        check_cap(pair, self.least_tokens, self._max_tokens)
        query = self._vocabulary.tokenize(pair.query)
        first = np.concatenate([self._before, query, self._between])
        max_tokens = pair.most_tokens(self._max_tokens)
        room = max_tokens - len(first) - len(self._after)
        if room < 1:
            raise query_too_long(pair, len(first) + len(self._after), self._max_tokens)
        return _BegunFlagPair(self._vocabulary, pair, first, self._after, room)


@dataclass(frozen=True, slots=True)
class _BegunFlagPair:
    vocabulary: Vocabulary
    pair: Pair
    first: Int32
    after: Int32
    room: int

    def end(self, document: str) -> PairIds:
        second = self.vocabulary.tokenize(document)
        total = len(second)
        if self.pair.document_tokens is not None:
            second = _cut_ids(second, self.pair.document_tokens, self.pair.truncate)
        if len(second) > self.room:
            fixed = len(self.first) + len(self.after)
            check_truncation(self.pair, fixed + len(second), fixed + self.room)
            second = _cut_ids(second, self.room, self.pair.truncate)
        ids = np.concatenate([self.first, second, self.after])
        return PairIds(ids, len(self.first), total - len(second))


def _specials(*tokens: int) -> Int32:
    return np.asarray([token for token in tokens if token >= 0], dtype=np.int32)


def _cut_ids(ids: Int32, length: int, truncate: Truncate) -> Int32:
    return ids[max(0, len(ids) - length) :] if truncate is Truncate.START else ids[:length]

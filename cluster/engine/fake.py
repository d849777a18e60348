"""A deterministic engine without weights, for tests of everything but numbers.

A token's hidden state depends on its id and its position alone, so an answer tells which text it belongs to, whatever else
was in the batch. What would make llama.cpp end the process ends this one as well.
"""

from __future__ import annotations

import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from cluster.engine.checks import check_packed
from cluster.errors import EngineError
from cluster.types import Float32, Int32, Int64, ModelFacts, PoolingType

_VOCABULARY_SIZE = 50_000
_FIRST_WORD = 1_000
_CLS, _SEP = 101, 102
_WORDS = re.compile(r"\w+|[^\w\s]")


def fake_facts() -> ModelFacts:
    """Facts of the model that the fake engine pretends to be: it answers every pooling type."""
    return ModelFacts(
        architecture="fake",
        causal=False,
        dimensions=16,
        layers=1,
        context_tokens=512,
        vocabulary_size=_VOCABULARY_SIZE,
        trained_pooling=PoolingType.MEAN,
        labels=("score",),
        pooling_types=tuple(PoolingType),
    )


class FakeVocabulary:
    """Words become ids by a hash; see ``cluster.engine.protocol.Vocabulary``."""

    size = _VOCABULARY_SIZE
    prefix: tuple[int, ...] = (_CLS,)
    suffix: tuple[int, ...] = (_SEP,)
    bos, eos, sep = _CLS, -1, _SEP
    add_bos, add_eos, add_sep = True, False, True

    def __init__(self) -> None:
        self._words: dict[int, str] = {_CLS: "[CLS]", _SEP: "[SEP]"}

    def tokenize(self, text: str, parse_special: bool = False) -> Int32:
        """Return one id for each word or punctuation mark, int32 ``[n]``."""
        ids = [self._id(word, parse_special) for word in _WORDS.findall(text)]
        return np.asarray(ids, dtype=np.int32)

    def _id(self, word: str, parse_special: bool) -> int:
        if parse_special and word in ("CLS", "SEP"):
            return _CLS if word == "CLS" else _SEP
        token_id = _FIRST_WORD + zlib.crc32(word.encode("utf-8", "replace")) % (_VOCABULARY_SIZE - _FIRST_WORD)
        self._words[token_id] = word
        return token_id

    def piece(self, token_id: int) -> bytes:
        """Return the last word that had this id."""
        return self._words.get(token_id, f"<{token_id}>").encode("utf-8", "replace")

    def detokenize(self, token_ids: Int32) -> str:
        """Return the words, joined by spaces."""
        return " ".join(self.piece(int(token_id)).decode() for token_id in token_ids)

    def template(self, name: str) -> str | None:
        """The fake model has no template."""
        return None

    def close(self) -> None:
        """Nothing to free."""


class FakeEngine:
    """See ``cluster.engine.protocol.Engine``.

    Args:
        context_tokens: the longest sequence, if below the model's.
        seconds_per_token: how long a call takes.
        slots: calls at once; each takes its own time, as if it had a core of its own.
        poison_id: a token id that the call does not survive.
        faults: token id → ``out_of_memory`` or ``hang``.
        abort: what a call does that llama.cpp would not survive.
    """

    def __init__(
        self,
        facts: ModelFacts | None = None,
        *,
        max_micro_batch_tokens: int = 512,
        context_tokens: int | None = None,
        seconds_per_token: float = 0.0,
        slots: int = 1,
        poison_id: int | None = None,
        faults: Mapping[int, str] = MappingProxyType({}),
        abort: Callable[[], None] = os.abort,
    ) -> None:
        self.facts = facts or fake_facts()
        self.max_sequence_tokens = min(self.facts.context_tokens, context_tokens or self.facts.context_tokens)
        whole_sequence = 0 if self.facts.causal else self.max_sequence_tokens
        self.max_micro_batch_tokens = max(max_micro_batch_tokens, whole_sequence)
        self.max_sequences = 256
        self.slots = self.threads = slots
        self.build = self.device = "fake"
        self._closed = False
        self._seconds_per_token = seconds_per_token
        self._poison_id = poison_id
        self._faults = dict(faults)
        self._abort = abort

    def encode(self, token_ids: Int32, offsets: Int64, *, slot: int = 0, threads: int | None = None) -> Float32:
        """Return made-up hidden states, float32 ``[total_tokens, dimensions]``, each a function of id and position."""
        self._native_call(token_ids, offsets)
        positions = np.arange(len(token_ids)) - np.repeat(offsets[:-1], np.diff(offsets))
        phases = (token_ids.astype(np.float64) + 0.25 * positions)[:, None] * np.arange(1, self.facts.dimensions + 1)
        return np.sin(phases).astype(np.float32)

    def score(
        self,
        token_ids: Int32,
        offsets: Int64,
        second_segment: Int32,
        *,
        slot: int = 0,
        threads: int | None = None,
    ) -> Float32:
        """Return made-up scores, float32 ``[n, n_labels]``: the share of the second text's ids that the first has too.

        Label k has the share divided by k + 1.
        """
        if PoolingType.RANK not in self.facts.pooling_types:
            raise EngineError(f"the model has no classification head: {self.facts.refused.get(PoolingType.RANK, '')}")
        self._native_call(token_ids, offsets)
        shares = np.zeros((len(offsets) - 1, 1), dtype=np.float32)
        for item, second in enumerate(second_segment.tolist()):
            ids = token_ids[offsets[item] : offsets[item + 1]]
            middle = second if second >= 0 else len(ids)
            shares[item] = float(np.isin(ids[middle:], ids[:middle]).mean()) if middle < len(ids) else 0.0
        divisors = np.arange(1, max(1, len(self.facts.labels)) + 1)
        return (shares / divisors).astype(np.float32)

    def close(self) -> None:
        """Refuse further calls."""
        self._closed = True

    def _native_call(self, token_ids: Int32, offsets: Int64) -> None:
        if self._closed:
            raise EngineError("the engine is closed")
        try:
            check_packed(
                token_ids,
                offsets,
                vocabulary_size=self.facts.vocabulary_size,
                max_tokens=self.max_micro_batch_tokens,
                max_sequences=self.max_sequences,
                max_sequence_tokens=self.max_sequence_tokens,
                causal=self.facts.causal,
            )
        except EngineError:
            self._abort()
            raise
        if self._poison_id is not None and (token_ids == self._poison_id).any():
            self._abort()
        for token_id in self._faults.keys() & set(token_ids.tolist()):
            if self._faults[token_id] == "out_of_memory":
                raise MemoryError
            threading.Event().wait()
        if self._seconds_per_token:
            # It stands for the work of a model.
            time.sleep(self._seconds_per_token * len(token_ids))

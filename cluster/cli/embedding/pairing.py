"""Records and the batches that come back for their texts, joined again in order."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from cluster.cli.embedding.embedders import Embedder
from cluster.cli.embedding.parts import Origin, Result
from cluster.cli.embedding.records import Record
from cluster.client import EmbedBatch
from cluster.errors import InputTooLong, PoolhouseError

# Bad records wait for a good one behind them. This many in a row are passed on without, so that memory stays flat.
_BAD_IN_A_ROW = 50_000


@dataclass(frozen=True, slots=True)
class Embedded:
    """Results of consecutive records, what made them, and how many tokens were cut from their texts."""

    results: list[Result]
    origin: Origin
    cut_tokens: int


def embed_records(records: Iterator[Record], embedder: Embedder, prompt: str) -> Generator[Embedded, None, None]:
    """Yield the results of all records, in order, each record once.

    Raises:
        PoolhouseError: something is wrong that is not one text's fault; what was yielded before is good.
    """
    texts = _Texts(records, prompt)
    while not texts.ended:
        with closing(embedder.batches(texts)) as batches:
            for batch in batches:
                yield from _pair(texts, batch)
        if texts.waiting:
            yield Embedded(texts.take_bad(), Origin(), 0)


class _Texts:
    """The texts of good records; all records wait until the results of their texts are there."""

    def __init__(self, records: Iterator[Record], prompt: str) -> None:
        self._records = records
        self._prompt = prompt
        self.waiting: deque[Record] = deque()
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        bad = 0
        for record in self._records:
            self.waiting.append(record)
            if record.fault is None:
                bad = 0
                yield self._prompt + record.text
            else:
                bad += 1
                if bad >= _BAD_IN_A_ROW:
                    return
        self.ended = True

    def take_bad(self) -> list[Result]:
        """Return the results of the bad records that wait before the next good one."""
        results: list[Result] = []
        while self.waiting and self.waiting[0].fault is not None:
            record = self.waiting.popleft()
            results.append(Result(record, fault=record.fault))
        return results


def _pair(texts: _Texts, batch: EmbedBatch) -> Iterator[Embedded]:
    origin = Origin(batch.model, batch.pooling, batch.fingerprint)
    results: list[Result] = []
    for (index, vector), tokens in zip(batch, batch.tokens, strict=True):
        results += texts.take_bad()
        error = batch.errors.get(index)
        if error is not None and error.status >= 500:
            # The server's fault, not the text's: to leave the text out would lose it.
            yield Embedded(results, origin, batch.truncated_tokens)
            raise error
        fault = None if error is None else fault_of_error(error)
        results.append(Result(texts.waiting.popleft(), vector, tokens, fault))
    yield Embedded(results, origin, batch.truncated_tokens)


def fault_of_error(error: PoolhouseError) -> str:
    """Return what is wrong with a text, in words that fit a file rather than a request."""
    tokens, most = error.extra.get("n_prompt_tokens"), error.extra.get("n_ctx")
    if isinstance(error, InputTooLong) and tokens is not None:
        return f"the text has {tokens} tokens and the model takes {most}; shorten it, or give --truncate end"
    return re.sub(r"\binput(\[\d+\])?(?=\s)", "the text", error.message, count=1)

"""What a person sees of a run on standard error: a bar, bad lines, and at the end what was done."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tqdm import tqdm

from cluster.cli.embedding.parts import PartFacts, Result
from cluster.cli.embedding.records import Input

_MOST_SHOWN = 20


class Reporter:
    """Shows a bar on a terminal, and bad records always.

    Args:
        errors: where all bad records are written to, for messages; None for nowhere.
        quiet: show nothing but bad records.
        done: records that an earlier run did, the last of them at ``position`` in the input.
    """

    def __init__(self, source: Input, errors: str | None, quiet: bool, done: int = 0, position: int = 0) -> None:
        if done and not quiet:
            print(f"{done} {source.noun}s were done before; going on behind them", file=sys.stderr)
        self._source = source
        self._errors = errors
        self._position = position
        self._records = self._tokens = self._bad = 0
        self._started_s = time.monotonic()
        known = source.total is not None
        self._bar = tqdm(
            total=source.total,
            initial=position,
            # None: only where standard error is a terminal.
            disable=True if quiet else None,
            file=sys.stderr,
            bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}" if known else "{elapsed}{postfix}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def count(self, results: Sequence[Result]) -> None:
        """Take the results of further records."""
        for result in results:
            if result.fault is not None:
                self._show_bad(result.record.line, result.fault)
        self._records += len(results)
        self._tokens += sum(result.tokens for result in results)
        if results:
            position = results[-1].record.position
            seconds = max(time.monotonic() - self._started_s, 1e-6)
            self._bar.set_postfix_str(
                f"{self._records:,} {self._source.noun}s, {self._records / seconds:,.0f}/s, "
                f"{self._tokens / seconds:,.0f} tokens/s",
                refresh=False,
            )
            self._bar.update(position - self._position)
            self._position = position

    def _show_bad(self, line: int, fault: str) -> None:
        self._bad += 1
        if self._bad <= _MOST_SHOWN:
            self._say(f"{self._source.name}, {self._source.noun} {line}: {fault}")
        elif self._bad == _MOST_SHOWN + 1:
            where = f"all are written to {self._errors}" if self._errors else "give --errors FILE to have all"
            self._say(f"further bad {self._source.noun}s are not shown here; {where}")

    def _say(self, sentence: str) -> None:
        self._bar.clear()
        print(sentence, file=sys.stderr)


def summarize(facts: Sequence[PartFacts], noun: str) -> str:
    """Return one sentence on what all parts hold."""
    records, bad = sum(part.records for part in facts), sum(part.bad for part in facts)
    cut_tokens = sum(part.cut_tokens for part in facts)
    made = next((part for part in facts if part.dimensions), None)
    words = [f"{records} {noun}s: {records - bad} embedded, {bad} bad; {sum(part.tokens for part in facts)} tokens"]
    if cut_tokens:
        words.append(f"{cut_tokens} cut")
    if made is not None:
        words.append(f"{made.dimensions} dimensions, pooling {made.pooling}, model {made.model}")
    return ", ".join(words)

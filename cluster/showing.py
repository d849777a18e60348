"""Tokens that are only shown: what ``/tokenize`` and ``/detokenize`` work with, and what they may take of the machine.

Nothing is encoded, so an encoder's backlog says nothing of this work. It is counted in characters and ids, and it has threads
of its own, so that long contents keep no text from being tokenized for its vector.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from cluster.calls import Input
from cluster.config import Limits
from cluster.errors import Overloaded
from cluster.input_sizes import sizes_of
from cluster.offload import Offload
from cluster.texts import tokenizing_s
from cluster.tokenization import ShownTokens, Tokenizer
from cluster.types import Int32

_THREADS = 2

# Smaller calls say more of the hops than of the tokenizer.
_LEAST_MEASURED = 8_192

# The part of a deadline that may be planned with.
_PLANNED_SHARE = 0.75


class ShowingThreads:
    """Runs the Tokenizer stage's calls that only show. One whose client has gone before its turn is dropped."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._offload = Offload(_THREADS)

    async def tokens(
        self, model: str, content: Input, add_special: bool, parse_special: bool, with_pieces: bool
    ) -> ShownTokens:
        """See ``Tokenizer.shown``."""
        work = partial(self._tokenizer.shown, model, content, add_special, parse_special, with_pieces=with_pieces)
        # A list has texts of any length in it.
        return await self._offload.run(tokenizing_s([content], sizes_of([content]).weight), work)

    async def text(self, model: str, ids: Int32) -> str:
        """See ``Tokenizer.text``."""
        return await self._offload.run(tokenizing_s([ids], len(ids)), self._tokenizer.text, model, ids)

    def close(self) -> None:
        """Take no more calls, and drop those whose turn has not come."""
        self._offload.close()


@dataclass(slots=True)
class ShowingAccount:
    """What one ingress has in hand of this work.

    Attributes:
        waiting: characters and ids that are not yet answered.
        rate: characters and ids in a second, as last seen; None until a large call has been answered.
    """

    limits: Limits
    clock: Callable[[], float] = time.monotonic
    waiting: int = 0
    rate: float | None = None

    @contextmanager
    def hold(self, size: int, remaining_s: float | None) -> Iterator[None]:
        """Count a call of so many characters and ids as waiting while the context lasts. One that is alone is always let in.

        Raises:
            Overloaded: too much waits already, or what waits would take longer than the call has.
        """
        ahead = self.waiting
        most = self.limits.max_queued_tokens
        if ahead and ahead + size > most:
            raise _overloaded(
                f"{ahead} characters and token ids wait to be tokenized or printed and the request has {size}; at most {most} "
                "may wait",
                self._wait_s(ahead),
            )
        wait_s = self._wait_s(ahead + size)
        if ahead and remaining_s is not None and wait_s > _PLANNED_SHARE * remaining_s:
            raise _overloaded(
                f"{ahead} characters and token ids are tokenized or printed first, which takes about {wait_s:.1f} s; the "
                f"request has {remaining_s:.1f} s",
                wait_s,
            )
        started_s = self.clock()
        self.waiting += size
        try:
            yield
            elapsed_s = self.clock() - started_s
            if elapsed_s > 0:
                self._learn(size, (ahead + size) / elapsed_s)
        finally:
            self.waiting -= size

    def _learn(self, size: int, rate: float) -> None:
        # A small call that was held up is no sign of slowness; one that was quick is a sign of speed.
        if size >= _LEAST_MEASURED or (self.rate is not None and rate > self.rate):
            self.rate = rate

    def _wait_s(self, size: int) -> float:
        return 0.0 if self.rate is None else size / self.rate


def _overloaded(why: str, wait_s: float) -> Overloaded:
    return Overloaded(
        f"{why}; send it again later, or with a longer timeout_s", retry_after_s=max(1, math.ceil(wait_s))
    )

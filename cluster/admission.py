"""Who is let in: work that cannot be done within its deadline is refused at once, not after it has waited.

Each encoder's backlog is counted in tokens: everything admitted and not yet encoded, at this ingress and, as the encoders
report it, at the others. Backlog ÷ measured tokens per second is the wait of whoever comes next. Until the tokenizer has
counted a request's tokens, they are estimated: token ids are as many as they are, and characters become tokens by the ratio
that the model's earlier texts had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from cluster.config import PoolhouseConfig
from cluster.errors import NotReady, Overloaded
from cluster.types import Int64, Lane, VectorBatch

# The part of a deadline that may be planned with; the rest absorbs what the estimate gets wrong, since work that was let in
# and comes too late has cost an encoder its time for nothing.
_PLANNED_SHARE = 0.75

# With nothing ahead there is nothing to wait for, and the measured speed may be that of other texts: only work that would take
# twice its deadline is hopeless.
_ALONE_SHARE = 2.0

# What another ingress last reported counts for so long; then it has either come again or is gone.
_REPORT_VALID_S = 3.0

# A message is frozen once it is sent: what its clients no longer want is encoded, and what is in it is lost with its replica.
# Where work waits, it holds half a second of it, but at least what fills a micro-batch.
_MESSAGE_S = 0.5
_LEAST_MESSAGE_TOKENS = 512

_CHARACTERS_PER_TOKEN = 4.0
_STARTING_RETRY_S = 2.0

_ANY_NUMBER = 2**62


@dataclass(slots=True)
class EncoderLoad:
    """What an ingress knows of one encoder deployment.

    Attributes:
        tokens: admitted and not yet answered, by lane.
        elsewhere_tokens: the same at the other ingresses, all lanes, as of ``elsewhere_at_s``.
        tokens_per_s: of one replica that is kept busy; None until one has measured it.
        slots: engine calls that one replica runs at once.
    """

    tokens: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    elsewhere_tokens: int = 0
    elsewhere_at_s: float = -math.inf
    tokens_per_s: float | None = None
    slots: int = 1

    @property
    def total_tokens(self) -> int:
        """Admitted and not yet answered, of both lanes."""
        return sum(self.tokens.values())

    def ahead(self, lane: Lane, now_s: float) -> int:
        """Tokens that are encoded before a newcomer of this lane; those in the interactive lane pass bulk work by."""
        elsewhere = self.elsewhere_tokens if now_s - self.elsewhere_at_s < _REPORT_VALID_S else 0
        own = self.tokens[Lane.INTERACTIVE] + (self.tokens[Lane.BULK] if lane is Lane.BULK else 0)
        return own + elsewhere


class Admission:
    """Keeps the account of one ingress.

    Args:
        running: replicas of an encoder that run now; 0 while it has never run, at least 1 while it may be woken.
        clock: seconds, monotonic.
    """

    def __init__(
        self, config: PoolhouseConfig, running: Callable[[str], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = config.limits
        self._message_tokens = config.batching.message_tokens
        self._interactive_share = config.batching.shares[0] / sum(config.batching.shares)
        self._running = running
        self._clock = clock
        self._characters_per_token = dict.fromkeys(config.models, _CHARACTERS_PER_TOKEN)
        self.loads = {name: EncoderLoad() for name in config.encoders}

    @property
    def backlog_tokens(self) -> int:
        """Tokens admitted here and not yet encoded."""
        return sum(load.total_tokens for load in self.loads.values())

    def message_tokens(self, encoder: str) -> int:
        """Tokens that several requests may share a message with."""
        tokens_per_s = self.loads[encoder].tokens_per_s
        if tokens_per_s is None:
            return self._message_tokens
        return min(self._message_tokens, max(_LEAST_MESSAGE_TOKENS, int(_MESSAGE_S * tokens_per_s)))

    def estimate_tokens(
        self, model: str, characters: int | Int64, tokens: int | Int64 = 0, most_tokens: int | Int64 = _ANY_NUMBER
    ) -> int:
        """Return how many tokens will probably be encoded; arrays, int64 ``[n]``, have one entry for each item.

        Args:
            characters: of the texts, the prompts' with them.
            tokens: what is known exactly: ids that the client sent, special tokens.
            most_tokens: what truncation leaves of an item.
        """
        estimate = np.minimum(tokens + np.asarray(characters) / self._characters_per_token[model], most_tokens)
        return math.ceil(float(estimate.sum()))

    def tokens_of(self, model: str, characters: Int64) -> Int64:
        """Return how many tokens texts of so many characters probably are, int64 ``[n]``."""
        return np.ceil(characters / self._characters_per_token[model]).astype(np.int64)

    def learn_ratio(self, model: str, characters: int, tokens: int) -> None:
        """Note how many tokens a text alone had, uncut and without special tokens.

        The estimate follows slowly, and faster for long texts.
        """
        if characters and tokens:
            step = min(0.2, tokens / 5_000)
            ratio = min(max(characters / tokens, 0.5), 16.0)
            self._characters_per_token[model] += step * (ratio - self._characters_per_token[model])

    def check(self, shares: Mapping[str, float], tokens: int, lane: Lane, remaining_s: float | None) -> None:
        """Check that ``tokens`` more can be encoded within ``remaining_s``.

        Args:
            shares: encoder → its share of the work; they add up to 1.

        Raises:
            Overloaded: they cannot; ``retry_after_s`` is when they could, at the measured rate.
            NotReady: an encoder has not started yet.
        """
        now_s = self._clock()
        for encoder, share in shares.items():
            replicas = self._running(encoder)
            if replicas == 0:
                raise NotReady(f"the encoder {encoder} is still starting; try again", retry_after_s=_STARTING_RETRY_S)
            load = self.loads[encoder]
            own = math.ceil(tokens * share)
            ahead = load.ahead(lane, now_s)
            rate = None if load.tokens_per_s is None else load.tokens_per_s * replicas
            if rate is not None and lane is Lane.INTERACTIVE and load.tokens[Lane.BULK]:
                rate *= self._interactive_share
            # A request that finds nothing ahead is let in whatever its size: waiting would not make it smaller.
            if ahead and ahead + own > self._limits.max_queued_tokens:
                excess = ahead + own - self._limits.max_queued_tokens
                self._refuse(
                    f"{ahead} tokens wait already and the limit is {self._limits.max_queued_tokens}",
                    excess / rate if rate else _STARTING_RETRY_S,
                )
            if rate is None or remaining_s is None:
                continue
            wait_s = (ahead + own) / rate
            planned_s = (_PLANNED_SHARE if ahead else _ALONE_SHARE) * remaining_s
            if wait_s > planned_s:
                self._refuse(
                    f"{ahead} tokens wait already, the answer would take about {wait_s:.1f} s and the request's limit is "
                    f"{remaining_s:g} s",
                    wait_s - planned_s,
                )

    def _refuse(self, why: str, retry_after_s: float) -> None:
        raise Overloaded(
            f"{why}; send it again later, or with a longer timeout_s", retry_after_s=max(1, math.ceil(retry_after_s))
        )

    @contextmanager
    def hold(self, shares: Mapping[str, float], tokens: int, lane: Lane) -> Iterator[None]:
        """Count ``tokens`` as waiting while the context lasts."""
        held = {encoder: math.ceil(tokens * share) for encoder, share in shares.items()}
        for encoder, count in held.items():
            self.loads[encoder].tokens[lane] += count
        try:
            yield
        finally:
            for encoder, count in held.items():
                self.loads[encoder].tokens[lane] -= count

    def observe(self, encoder: str, answer: VectorBatch) -> None:
        """Take in what a replica reports with its answer: its speed, and what other ingresses wait for."""
        report, load = answer.report, self.loads[encoder]
        if report is None:
            return
        if report.tokens_per_s is not None:
            last = load.tokens_per_s
            load.tokens_per_s = report.tokens_per_s if last is None else 0.7 * last + 0.3 * report.tokens_per_s
        load.slots = report.slots
        load.elsewhere_tokens = report.elsewhere_tokens
        load.elsewhere_at_s = self._clock()

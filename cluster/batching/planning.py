"""How a window of sequences is cut into micro-batches for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.types import Int64

# Speeds within so much of each other are told apart by a measurement only now and then.
_ABOUT = 0.97

# Filler has to gain more than a measurement is out by.
_WORTH = 1.04


@dataclass(frozen=True, slots=True)
class Filling:
    """Which small calls are faster when they are filled up with tokens that nobody asked for.

    Attributes:
        tokens: what a call is filled up to.
        short_tokens: of the short sequences that were measured.
        measured: (tokens of a call, what it takes in short sequences, what it takes in one), in order of tokens, as multiples
            of what a filled call takes.
    """

    tokens: int
    short_tokens: int
    measured: tuple[tuple[int, float, float], ...]

    def missing_tokens(self, lengths: Sequence[int]) -> int:
        """How many tokens a call of sequences of these lengths gains by; 0 where it is no faster with filler."""
        total = sum(lengths)
        totals, in_short, in_one = zip(*self.measured, strict=True)
        if not totals[0] <= total < self.tokens:
            return 0
        # Attention costs the squares of the lengths: their mean, weighted by tokens, says where a call lies between the two.
        squares = sum(length * length for length in lengths) / total
        share = (squares - self.short_tokens) / (total - self.short_tokens)
        short, one = np.interp(total, totals, in_short), np.interp(total, totals, in_one)
        return self.tokens - total if short + share * (one - short) > _WORTH else 0


@dataclass(frozen=True, slots=True)
class MicroBatchSizes:
    """Tokens of a micro-batch, and how fast the engine is at each size.

    Attributes:
        rates: (tokens, tokens per second), in order of size.
        filling: None where no call is faster for being larger.
    """

    rates: tuple[tuple[int, float], ...]
    filling: Filling | None = None

    @classmethod
    def fixed(cls, tokens: int) -> MicroBatchSizes:
        """One size, unmeasured."""
        return cls(((tokens, 0.0),))

    @property
    def largest(self) -> int:
        """The most tokens that a micro-batch of several sequences may have."""
        return self.rates[-1][0]

    @property
    def tokens_per_s(self) -> float | None:
        """The engine's speed at its best size; None where nothing was measured."""
        return max(rate for _, rate in self.rates) or None

    def best(self, lengths: Int64) -> int:
        """The smallest size that is about the fastest for sequences of these lengths, or the longest one's length.

        A size counts for as fast as what fills it: two sequences of 60 tokens in one of 128, one in 96. What a larger size
        gains within the noise of a measurement, it loses at the end of a message, where one slot works and the others have
        nothing left.

        Args:
            lengths: int64 ``[n]`` with at least one entry, tokens of each sequence that waits.
        """
        longest_tokens = int(lengths.max())
        sizes, rates = (np.asarray(column, dtype=np.float64) for column in zip(*self.rates, strict=True))
        holding = sizes[sizes >= longest_tokens]
        if not len(holding):
            return longest_tokens
        typical = float(lengths.mean())
        speeds = np.interp(np.maximum(1.0, holding // typical) * typical, sizes, rates)
        return int(holding[np.argmax(speeds >= _ABOUT * speeds.max())])

    def filler_tokens(self, lengths: Sequence[int]) -> int:
        """How many tokens to add to a call of sequences of these lengths, as one more sequence; 0 for most."""
        return self.filling.missing_tokens(lengths) if self.filling is not None else 0


def plan_micro_batches(lengths: Int64, budget_tokens: int, max_sequences: int) -> list[list[int]]:
    """Cut sequences into micro-batches of at most ``budget_tokens`` and ``max_sequences``.

    Sorted by length, longest first, each into the first micro-batch with room (first-fit decreasing): the number of
    micro-batches stays within 11/9 of the least possible, and sequences of like length end up together, which is what
    causal models want. The plan depends on nothing but the arguments, so equal windows give bit-equal results.

    Args:
        lengths: int64 ``[n]``, tokens of each sequence.
        budget_tokens: a sequence that is longer than this gets a micro-batch of its own.
        max_sequences: of one micro-batch.

    Returns:
        Indices into ``lengths``; every index once.
    """
    order = np.argsort(-lengths, kind="stable")
    plan: list[list[int]] = []
    room: list[int] = []
    first_open = 0
    for index in order.tolist():
        length = int(lengths[index])
        for slot in range(first_open, len(plan)):
            if length <= room[slot] and len(plan[slot]) < max_sequences:
                break
        else:
            slot = len(plan)
            plan.append([])
            room.append(max(budget_tokens, length))
        plan[slot].append(index)
        room[slot] -= length
        # A full micro-batch at the front never opens again; skipping it keeps long windows linear.
        while first_open < len(plan) and (room[first_open] == 0 or len(plan[first_open]) >= max_sequences):
            first_open += 1
    return plan


def split_by_tokens(lengths: Int64, cap_tokens: int, cap_items: int) -> list[tuple[int, int]]:
    """Cut consecutive items into ranges ``[begin, end)`` of at most ``cap_tokens`` and ``cap_items`` (one item at least)."""
    ranges: list[tuple[int, int]] = []
    ends = np.cumsum(lengths)
    begin, before = 0, 0
    # One step for a range, not for an item: an event loop waits for it.
    while begin < len(lengths):
        fitting = int(np.searchsorted(ends, before + cap_tokens, side="right"))
        end = max(begin + 1, min(fitting, begin + cap_items))
        ranges.append((begin, end))
        begin, before = end, int(ends[end - 1])
    return ranges


def split_by_bytes(sizes: Int64, cap_bytes: int) -> list[tuple[int, int]]:
    """Cut consecutive items of these bytes into ranges ``[begin, end)`` of at most ``cap_bytes`` (one item at least)."""
    return split_by_tokens(sizes, cap_bytes, max(1, len(sizes)))

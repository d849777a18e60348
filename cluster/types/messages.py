"""The packed messages between stages.

A packed message holds all its items' numbers in a few flat arrays plus offsets: ragged, unpadded, with no Python object
for a token. What belongs to one HTTP request is kept once (``RequestFacts``) and items point at it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cluster.errors import PoolhouseError
from cluster.types.kinds import Float32, Int32, Int64, Lane, UInt8
from cluster.types.provenance import UNKNOWN, Provenance


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the stages know of one HTTP request.

    Attributes:
        deadline_s: when its time is over, by this process's ``time.monotonic``; None is never. The clocks of two machines differ,
            so a message carries the time that is left when it is sent, and its receiver counts from when it arrives.
        client: who sent it, as ``cluster.quarantine.client_of`` names it; empty for work of the server's own.
    """

    request_id: str
    lane: Lane = Lane.INTERACTIVE
    deadline_s: float | None = None
    trace: str | None = None
    client: str = ""

    @property
    def remaining_s(self) -> float | None:
        """Seconds left, negative when they are over; None is no limit."""
        return None if self.deadline_s is None else self.deadline_s - time.monotonic()

    def __reduce__(self) -> tuple[object, ...]:
        """Carry the time that is left in place of the deadline."""
        return _arrived, (self.request_id, self.lane, self.remaining_s, self.trace, self.client)


def _arrived(request_id: str, lane: Lane, remaining_s: float | None, trace: str | None, client: str) -> RequestFacts:
    deadline_s = None if remaining_s is None else time.monotonic() + remaining_s
    return RequestFacts(request_id, lane, deadline_s, trace, client)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one ingress says of its work for one encoder.

    Attributes:
        ingress: names it.
        tokens: admitted there and not yet answered, whether they wait in the ingress, are on their way or in an encoder.
        reported_s: when it said so, by a clock of its own that only grows.
    """

    ingress: str
    tokens: int
    reported_s: float


@dataclass(slots=True)
class TokenBatch:
    """Packed token sequences, the message from the tokenizer to an encoder.

    Attributes:
        fingerprint: of the model and all settings that change vectors.
        token_ids: int32 ``[total_tokens]``.
        offsets: int64 ``[n + 1]``; item i is ``token_ids[offsets[i]:offsets[i + 1]]``.
        pooling: uint8 ``[n]``, ``PoolingType.code``.
        second_segment: int32 ``[n]``, where in the item a pair's second text begins; -1 for single texts.
        cut_tokens: int32 ``[n]``, how many tokens truncation removed.
        owner: int32 ``[n]``, index into ``requests``.
        errors: item index → its own error. Such an item has no tokens, and the encoder passes it by.
        backlog: of the ingress that sent the message, this message included.
        gone: items that nobody waits for any more; an encoder in the ingress's own process sees it grow while it has the message.
    """

    fingerprint: str
    token_ids: Int32
    offsets: Int64
    pooling: UInt8
    second_segment: Int32
    cut_tokens: Int32
    owner: Int32
    requests: list[RequestFacts]
    errors: dict[int, PoolhouseError] = field(default_factory=dict)
    backlog: Backlog | None = None
    gone: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64:
        """Tokens of each item, int64 ``[n]``."""
        return self.offsets[1:] - self.offsets[:-1]

    def ids(self, item: int) -> Int32:
        """Token ids of one item, a view."""
        return self.token_ids[self.offsets[item] : self.offsets[item + 1]]

    def select(self, items: Sequence[int]) -> TokenBatch:
        """Return a message of some of the items, in the order given."""
        index = np.asarray(items, dtype=np.int64)
        places, offsets = _places_of(self.offsets, items)
        return TokenBatch(
            fingerprint=self.fingerprint,
            token_ids=self.token_ids[places].copy() if isinstance(places, slice) else self.token_ids[places],
            offsets=offsets,
            pooling=self.pooling[index],
            second_segment=self.second_segment[index],
            cut_tokens=self.cut_tokens[index],
            owner=self.owner[index],
            requests=self.requests,
            errors=_errors_of(self.errors, items),
        )

    def slice(self, begin: int, end: int) -> TokenBatch:
        """Return a message of the items ``[begin, end)``: views, so that it costs next to nothing."""
        first, last = self.offsets[begin], self.offsets[end]
        return TokenBatch(
            fingerprint=self.fingerprint,
            token_ids=self.token_ids[first:last],
            offsets=self.offsets[begin : end + 1] - first,
            pooling=self.pooling[begin:end],
            second_segment=self.second_segment[begin:end],
            cut_tokens=self.cut_tokens[begin:end],
            owner=self.owner[begin:end],
            requests=self.requests,
            errors={item - begin: error for item, error in self.errors.items() if begin <= item < end},
        )

    @staticmethod
    def concatenate(batches: Sequence[TokenBatch]) -> TokenBatch:
        """Return one message with the items of all; they must be of one model (one fingerprint)."""
        if len(batches) == 1:
            return batches[0]
        errors: dict[int, PoolhouseError] = {}
        requests: list[RequestFacts] = []
        owners: list[Int32] = []
        first_item = 0
        for batch in batches:
            errors.update({first_item + item: error for item, error in batch.errors.items()})
            owners.append((batch.owner + len(requests)).astype(np.int32))
            requests.extend(batch.requests)
            first_item += len(batch)
        return TokenBatch(
            fingerprint=batches[0].fingerprint,
            token_ids=np.concatenate([batch.token_ids for batch in batches]),
            offsets=offsets_of(np.concatenate([batch.lengths for batch in batches])),
            pooling=np.concatenate([batch.pooling for batch in batches]),
            second_segment=np.concatenate([batch.second_segment for batch in batches]),
            cut_tokens=np.concatenate([batch.cut_tokens for batch in batches]),
            owner=np.concatenate(owners),
            requests=requests,
            errors=errors,
        )


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What an encoder replica says of itself with an answer.

    Attributes:
        slots: engine calls that it runs at once.
        tokens_per_s: its speed when it is kept busy; None until that was measured.
        elsewhere_tokens: the backlog of all other ingresses than the one that sent the message.
    """

    slots: int
    tokens_per_s: float | None
    elsewhere_tokens: int


@dataclass(slots=True)
class VectorBatch:
    """Packed results of an encoder: a vector, a token matrix or a row of scores for each item.

    Attributes:
        values: float32 ``[total]``, all rows of all items one after the other.
        offsets: int64 ``[n + 1]`` into ``values``.
        widths: int32 ``[n]``, columns of the item: the model's dimensions, or its number of labels for rank.
        errors: item index → its own error; such an item has no values.
        encoded_tokens: tokens the engine computed for this message, duplicates not counted.
        report: of the replica; None from a message that never reached its engine.
        provenance: of the items.
    """

    fingerprint: str
    values: Float32
    offsets: Int64
    widths: Int32
    errors: dict[int, PoolhouseError] = field(default_factory=dict)
    encoded_tokens: int = 0
    report: ReplicaReport | None = None
    provenance: Provenance = UNKNOWN

    def __post_init__(self) -> None:
        if self.provenance is UNKNOWN:
            self.provenance = Provenance.unknown(len(self))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, item: int) -> Float32:
        """One item's rows, float32 ``[rows, width]``, a view; one row for everything but ``none``."""
        flat = self.values[self.offsets[item] : self.offsets[item + 1]]
        return flat.reshape(-1, int(self.widths[item]))

    def select(self, items: Sequence[int]) -> VectorBatch:
        """Return a message of some of the items, in the order given."""
        places, offsets = _places_of(self.offsets, items)
        return VectorBatch(
            fingerprint=self.fingerprint,
            # A view would keep the whole message's numbers alive.
            values=self.values[places].copy() if isinstance(places, slice) else self.values[places],
            offsets=offsets,
            widths=self.widths[np.asarray(items, dtype=np.int64)],
            errors=_errors_of(self.errors, items),
            encoded_tokens=self.encoded_tokens,
            provenance=self.provenance.select(items),
        )

    def part(self, begin: int, end: int) -> VectorBatch:
        """The items ``[begin, end)``, their values a view."""
        offsets = self.offsets[begin : end + 1]
        return VectorBatch(
            fingerprint=self.fingerprint,
            values=self.values[offsets[0] : offsets[-1]],
            offsets=offsets - offsets[0],
            widths=self.widths[begin:end],
            errors={item - begin: error for item, error in self.errors.items() if begin <= item < end},
        )

    @staticmethod
    def refused(fingerprint: str, error: PoolhouseError) -> VectorBatch:
        """The answer to a message of one item that has no values."""
        return VectorBatch(
            fingerprint=fingerprint,
            values=np.zeros(0, dtype=np.float32),
            offsets=offsets_of([0]),
            widths=np.ones(1, dtype=np.int32),
            errors={0: error},
        )

    @staticmethod
    def concatenate(batches: Sequence[VectorBatch]) -> VectorBatch:
        """Return one message with the items of all, in order."""
        if len(batches) == 1:
            return batches[0]
        errors: dict[int, PoolhouseError] = {}
        first_item = 0
        for batch in batches:
            errors.update({first_item + item: error for item, error in batch.errors.items()})
            first_item += len(batch)
        return VectorBatch(
            fingerprint=batches[0].fingerprint,
            values=np.concatenate([batch.values for batch in batches]),
            offsets=offsets_of(np.concatenate([np.diff(batch.offsets) for batch in batches])),
            widths=np.concatenate([batch.widths for batch in batches]),
            errors=errors,
            encoded_tokens=sum(batch.encoded_tokens for batch in batches),
            provenance=Provenance.concatenate([batch.provenance for batch in batches]),
        )


def offsets_of(lengths: Sequence[int] | Int64) -> Int64:
    """Return int64 ``[n + 1]`` offsets of items that have these lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _places_of(offsets: Int64, items: Sequence[int]) -> tuple[slice | Int64, Int64]:
    """Return where the entries of some items are in a flat array, and the offsets that they have one behind the other.

    Args:
        offsets: int64 ``[n + 1]`` of all items.

    Returns:
        A slice where the items follow each other, else int64 ``[total]``; and int64 ``[len(items) + 1]``.
    """
    if isinstance(items, range) and items.step == 1 and items:
        begin, end = offsets[items.start], offsets[items.stop]
        return slice(int(begin), int(end)), offsets[items.start : items.stop + 1] - begin
    index = np.asarray(items, dtype=np.int64)
    firsts, lengths = offsets[index], offsets[index + 1] - offsets[index]
    chosen = offsets_of(lengths)
    return np.repeat(firsts - chosen[:-1], lengths) + np.arange(chosen[-1]), chosen


def _errors_of(errors: dict[int, PoolhouseError], items: Sequence[int]) -> dict[int, PoolhouseError]:
    """The errors of some items, by their new places."""
    if not errors:
        return {}
    return {new: errors[int(old)] for new, old in enumerate(items) if int(old) in errors}

"""An iterable of any length → jobs of bounded size, each of which becomes one request.

Each item is printed as JSON once, when it is packed: that gives its size to the byte, finds what JSON cannot hold, and spares
a request that is sent again a second printing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray

from cluster.errors import InvalidRequest, PoolhouseError

TextInput = str | Sequence[int] | Sequence[str | int] | NDArray[np.integer]
"""One text, its token ids, or a mixture of texts and token ids."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the iterable: its index there, and its JSON."""

    index: int
    json: bytes


@dataclass(slots=True)
class Job:
    """Consecutive items ``start`` to ``end - 1``; those that cannot be sent are in ``refused``, by index."""

    start: int
    items: list[Item] = field(default_factory=list)
    refused: dict[int, PoolhouseError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items) + len(self.refused)


class Packer:
    """Gathers items into jobs.

    Args:
        name: request field that the items go to; errors name items by it (``input[17]``).
        print_item: returns an item's JSON; raises InvalidRequest with what is wrong with it.
        max_items: of one job.
        max_bytes: of one job's items as JSON; an item above it gets a job of its own.
    """

    def __init__(self, name: str, print_item: Callable[[object], bytes], max_items: int, max_bytes: int) -> None:
        self._name = name
        self._print_item = print_item
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._next_index = 0
        self._job = Job(0)
        self._bytes = 0

    def pack(self, values: Iterable[object]) -> Iterator[Job]:
        """Yield jobs as soon as they are full, and the last one; reads one item ahead of a full job at most."""
        for value in values:
            yield from self._push(value)
        yield from self._rest()

    async def pack_async(self, values: AsyncIterable[object] | Iterable[object]) -> AsyncGenerator[Job, None]:
        """Do the same for an iterable of either kind."""
        if isinstance(values, AsyncIterable):
            async for value in values:
                for job in self._push(value):
                    yield job
            for job in self._rest():
                yield job
        else:
            for job in self.pack(values):
                yield job

    def _push(self, value: object) -> Iterator[Job]:
        index = self._next_index
        self._next_index += 1
        try:
            json = self._print_item(value)
        except InvalidRequest as error:
            where = f"{self._name}[{index}]"
            self._job.refused[index] = InvalidRequest(f"{where} {error.message}", where, items=[index])
        else:
            if self._job.items and self._bytes + len(json) > self._max_bytes:
                yield self._take(index)
            self._job.items.append(Item(index, json))
            self._bytes += len(json)
        if len(self._job) >= self._max_items or self._bytes >= self._max_bytes:
            yield self._take(self._next_index)

    def _rest(self) -> Iterator[Job]:
        if len(self._job):
            yield self._take(self._next_index)

    def _take(self, next_start: int) -> Job:
        job, self._job, self._bytes = self._job, Job(next_start), 0
        return job


def print_text(value: object) -> bytes:
    """Return the JSON of a ``TextInput``.

    Raises:
        InvalidRequest: it is something else, is empty, or has characters that UTF-8 cannot hold.
    """
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or not np.issubdtype(value.dtype, np.integer):
            raise InvalidRequest(f"is an array {value.dtype} of shape {value.shape}; token ids are integers [n_tokens]")
        value = value.tolist()
    if not isinstance(value, (str, list, tuple)):
        raise InvalidRequest(f"is of type {type(value).__name__}; pass a text or a list of token ids")
    if not value:
        kind = "text" if isinstance(value, str) else "list of token ids"
        raise InvalidRequest(f"is an empty {kind}; pass at least one {'character' if kind == 'text' else 'id'}")
    return _print(value)


def print_string(value: object) -> bytes:
    """Return the JSON of one text, which may be empty.

    Raises:
        InvalidRequest: it is something else, or has characters that UTF-8 cannot hold.
    """
    if not isinstance(value, str):
        raise InvalidRequest(f"is of type {type(value).__name__}; pass a text")
    return _print(value)


def print_pair(value: object) -> bytes:
    """Return the JSON of two texts.

    Raises:
        InvalidRequest: it is something else.
    """
    if (
        isinstance(value, (str, bytes))
        or not isinstance(value, Sequence)
        or [isinstance(text, str) for text in value] != [True, True]
    ):
        raise InvalidRequest("is not a pair; pass (text, text)")
    return _print(list(value))


def check_iterable(values: object, name: str, singular: str) -> None:
    """Check that ``values`` is not one string, which would be taken for an iterable of its characters.

    Raises:
        InvalidRequest: it is, or it is no iterable at all.
    """
    if isinstance(values, (str, bytes)):
        raise InvalidRequest(f"{name} is one string; pass a list: [{singular}]", name)
    if not isinstance(values, (Iterable, AsyncIterable)):
        raise InvalidRequest(f"{name} is of type {type(values).__name__}; pass an iterable", name)


def _print(value: object) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(
            f"cannot be sent as JSON ({error}); pass text that UTF-8 can hold, or token ids"
        ) from error

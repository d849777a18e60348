"""A job through to its end: sent again without its bad items, or in halves where the server finds it too large."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from cluster.client.connection import Connection, Message
from cluster.client.errors import faulty_items, relocate
from cluster.client.packing import Item, Job
from cluster.client.retries import RETRIED_STATUSES, Deadline
from cluster.errors import PayloadTooLarge, PoolhouseError


class OnError(enum.StrEnum):
    """What a bad item does: end the call, or be left out."""

    RAISE = "raise"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Form:
    """How a job's items become a request.

    Attributes:
        name: the field that the items go to.
        members: JSON of the other members, without braces.
    """

    path: str
    name: str
    members: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def message(self, items: list[Item]) -> Message:
        """Return the request for some of a job's items."""
        listed = b",".join(item.json for item in items)
        more = b"," + self.members if self.members else b""
        return Message(
            "POST", self.path, b'{"%s":[%s]%s' % (self.name.encode(), listed, more), self.headers, limited=True
        )


@dataclass(slots=True)
class Settled:
    """What became of a job: answers with the items that each is for, and the errors of the others by index."""

    answers: list[tuple[list[Item], httpx.Response]] = field(default_factory=list)
    errors: dict[int, PoolhouseError] = field(default_factory=dict)


async def settle(connection: Connection, form: Form, job: Job, deadline: Deadline, on_error: OnError) -> Settled:
    """Send a job until each of its items has an answer or an error.

    Raises:
        PoolhouseError: with ``on_error`` raise, the error of the bad items, their indices in ``extra["items"]``; with
            either, an error that is not about items.
    """
    if job.refused and on_error is OnError.RAISE:
        raise _first_of(job.refused)
    settled = Settled(errors=dict(job.refused))
    parts = deque([job.items] if job.items else [])
    while parts:
        items = parts.popleft()
        try:
            response = await connection.send(form.message(items), deadline)
        except PoolhouseError as error:
            faulty = _faulty(error, form.name, len(items))
            if not faulty and isinstance(error, PayloadTooLarge) and len(items) > 1:
                middle = len(items) // 2
                parts.extendleft([items[middle:], items[:middle]])
                continue
            if not faulty:
                raise
            located = relocate(error, form.name, [item.index for item in items], faulty)
            if on_error is OnError.RAISE:
                raise located from error
            bad = [items[position] for position in faulty]
            good = [item for position, item in enumerate(items) if position not in set(faulty)]
            if len(bad) == 1:
                settled.errors[bad[0].index] = located
            else:
                # An error about several items merges their texts and kinds. Alone, each one gets its own.
                parts.extendleft([item] for item in reversed(bad))
            if good:
                parts.appendleft(good)
        else:
            settled.answers.append((items, response))
    return settled


def _faulty(error: PoolhouseError, name: str, items: int) -> list[int]:
    # An overloaded or lost server is no fault of the items, whichever it was holding.
    if error.status in RETRIED_STATUSES:
        return []
    if items == 1 and isinstance(error, PayloadTooLarge):
        return [0]
    return faulty_items(error, name, items)


def _first_of(refused: dict[int, PoolhouseError]) -> PoolhouseError:
    """Return the error of the first refused item, which names all of them in ``extra``."""
    indices = sorted(refused)
    first = refused[indices[0]]
    more = f" (and {len(indices) - 1} more bad items near it)" if len(indices) > 1 else ""
    error = type(first)(first.message + more, first.param)
    error.extra = {**first.extra, "items": indices}
    return error

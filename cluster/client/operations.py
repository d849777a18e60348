"""What all calls on many items have in common: how the items are packed, sent and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

import numpy as np
import orjson

from cluster.client.packing import Job, Packer
from cluster.client.settling import Form, OnError, Settled
from cluster.errors import InvalidRequest

Part = TypeVar("Part")

OnErrorName = Literal["raise", "skip"]


@dataclass(frozen=True, slots=True)
class RequestSize:
    """How much goes into one request."""

    items: int
    bytes: int

    def check(self) -> None:
        """Raise InvalidRequest unless both are positive."""
        if self.items < 1 or self.bytes < 1:
            raise InvalidRequest(f"request_items is {self.items} and request_bytes is {self.bytes}; give at least 1")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Part]):
    """A call in progress: how items are packed, sent and read.

    Attributes:
        read: makes a part of the result from a settled job.
    """

    form: Form
    print_item: Callable[[object], bytes]
    size: RequestSize
    read: Callable[[Job, Settled], Part]
    on_error: OnError
    timeout_s: float | None

    def packer(self) -> Packer:
        """Return a packer for the items of one call."""
        return Packer(self.form.name, self.print_item, self.size.items, self.size.bytes)


def body_of(**members: object) -> bytes:
    """Return the JSON of one object without its closing brace; members that are None are left out."""
    return b"{" + members_of(**members)


def members_of(**members: object) -> bytes:
    """Return the same without either brace."""
    given = {name: value for name, value in members.items() if value is not None}
    try:
        return orjson.dumps(given, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(f"{', '.join(given)} cannot be sent as JSON: {error}") from error


def ids_of(tokens: object) -> list[int]:
    """Return token ids as a list.

    Raises:
        InvalidRequest: they are something else; a fraction is not cut to an id.
    """
    try:
        ids = np.asarray(tokens)
    except ValueError as error:
        raise InvalidRequest(f"tokens are no token ids: {error}", "tokens") from error
    if ids.ndim != 1 or (len(ids) and not np.issubdtype(ids.dtype, np.integer)):
        raise InvalidRequest(
            f"tokens are an array {ids.dtype} of shape {ids.shape}; token ids are integers [n_tokens]", "tokens"
        )
    listed: list[int] = ids.tolist()
    return listed


def on_error_of(name: str) -> OnError:
    """Return what to do at a bad item.

    Raises:
        InvalidRequest: it is neither raise nor skip.
    """
    valid = get_args(OnErrorName)
    if name not in valid:
        raise InvalidRequest(f"on_error is {name!r}; give one of: {', '.join(valid)}", "on_error")
    return OnError(name)

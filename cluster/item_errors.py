"""One error for all bad items of a request."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping

from cluster.errors import PoolhouseError

SHOWN = 16
"""So many bad items are named; the others are counted."""


def raise_item_errors(errors: Mapping[int, PoolhouseError], param: str, items: int, *, listed: bool = True) -> None:
    """Raise one error for all bad items; ``param`` names them (``input[17]``).

    Args:
        listed: whether the client sent a list. Without one there is a single item, and it is the field itself.
    """
    if not errors:
        return
    if len(errors) == 1:
        item, error = next(iter(errors.items()))
        raise type(error)(error.message, f"{param}[{item}]" if listed else param, **error.extra)
    # A fault of ours outweighs the client's, since a retry can help.
    kinds = dict.fromkeys(type(error) for error in errors.values())
    kind = max(kinds, key=lambda each: each.status)
    raise several(
        kind, "cannot be served", errors, lambda item: f"{param}[{item}]: {errors[item].message}", param, items
    )


def several(
    kind: type[PoolhouseError],
    fault: str,
    bad: Collection[int],
    describe: Callable[[int], str],
    param: str,
    items: int,
) -> PoolhouseError:
    """Return one error for several bad items of ``items``; only those that are named are described, as there may be thousands."""
    shown = heapq.nsmallest(SHOWN, bad)
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return kind(
        f"{len(bad)} of {items} items {fault}: {'; '.join(map(describe, shown))}{more}",
        ", ".join(f"{param}[{item}]" for item in shown) + more,
    )

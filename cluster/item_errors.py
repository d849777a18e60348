"""One error for all bad items of a request."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.errors import PoolhouseError


def raise_item_errors(errors: Mapping[int, PoolhouseError], param: str, items: int, *, listed: bool = True) -> None:
    """Raise one error for all bad items; ``param`` names them (``input[17]``).

    Args:
        listed: whether the client sent a list. Without one there is a single item, and it is the field itself.
    """
    if not errors:
        return
    numbered = sorted(errors.items())
    first = numbered[0][1]
    if len(numbered) == 1:
        where = f"{param}[{numbered[0][0]}]" if listed else param
        raise type(first)(first.message, where, **first.extra)
    shown = numbered[:16]
    more = f" and {len(numbered) - len(shown)} more" if len(numbered) > len(shown) else ""
    each = "; ".join(f"{param}[{item}]: {error.message}" for item, error in shown)
    kind = type(first) if all(type(error) is type(first) for error in errors.values()) else _worst(errors)
    raise kind(
        f"{len(numbered)} of {items} items cannot be served: {each}{more}",
        ", ".join(f"{param}[{item}]" for item, _ in shown) + more,
    )


def _worst(errors: Mapping[int, PoolhouseError]) -> type[PoolhouseError]:
    """Return the kind to answer with: a fault of ours outweighs the client's, since a retry can help."""
    return type(max(errors.values(), key=lambda error: error.status))

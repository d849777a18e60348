"""The timing headers of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

PARTS = ("tokenize", "queue", "encode", "pool")


def checked_parts_ms(headers: Mapping[str, str]) -> dict[str, Decimal]:
    """Return the milliseconds that an answer's headers give to each part and to ``total``, having checked that they agree."""
    found = {part: Decimal(headers[f"x-{part}-time-ms"]) for part in (*PARTS, "total")}
    assert all(value >= 0 for value in found.values()), found
    assert sum(found[part] for part in PARTS) <= found["total"], found
    return found

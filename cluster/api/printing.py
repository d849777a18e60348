"""JSON of long lists, printed in blocks: one call would keep the interpreter's lock until all is printed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from cluster.api.responses import Piece

# Either takes about a millisecond.
_BLOCK_ITEMS = 1_024
_BLOCK_CHARACTERS = 262_144


def print_list(items: Iterable[Any], *, characters_of: str = "") -> list[Piece]:
    """Print a list of values.

    Args:
        characters_of: the member of each item that may be long.
    """
    out: list[Piece] = []
    block: list[Any] = []
    characters = 0
    for item in items:
        block.append(item)
        if characters_of and characters_of in item:
            member = item[characters_of]
            characters += len(member if isinstance(member, str) else member["text"])
        if len(block) >= _BLOCK_ITEMS or characters >= _BLOCK_CHARACTERS:
            out.append((b"," if out else b"[") + orjson.dumps(block)[1:-1])
            block, characters = [], 0
    if block or not out:
        out.append((b"," if out else b"[") + orjson.dumps(block)[1:-1])
    out.append(b"]")
    return out


def print_members(members: dict[str, Any], name: str, items: Iterable[Any], *, characters_of: str = "") -> list[Piece]:
    """Print an object whose member ``name``, an empty list so far, is a long list; see ``print_list``."""
    # A quotation mark in a value is printed with a backslash before it.
    before, mark, after = orjson.dumps(members).partition(b'"%s":[]' % name.encode())
    return [before + mark[:-2], *print_list(items, characters_of=characters_of), after]

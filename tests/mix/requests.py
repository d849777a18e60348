"""What the mix sends: one request, how it is sent, the statuses that docs/ promise for it, and what a right answer is."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from tests.mix.reference import Reference

Check = Callable[[bytes], bool]
"""The body of an answer of status 200 → whether it is right."""

OK = frozenset({200})


class Manner(enum.Enum):
    """How a client behaves."""

    AT_ONCE = enum.auto()
    SENDS_SLOWLY = enum.auto()
    READS_SLOWLY = enum.auto()
    LEAVES = enum.auto()
    # The rest of the body never comes, so the connection is of no more use.
    STOPS_HALFWAY = enum.auto()


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        raw: all bytes, the head's with them.
        statuses: of the answers that the documentation promises; 0 is a connection that the server closes.
        check: of an answer of status 200; None where every one is right.
    """

    raw: bytes
    statuses: frozenset[int] = OK
    check: Check | None = None
    manner: Manner = Manner.AT_ONCE


Make = Callable[[random.Random], Request]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request: its name in the table and its share of the mix (of the sum of all weights)."""

    name: str
    weight: float
    make: Make


def http(
    path: str,
    body: bytes | None,
    *,
    method: str = "POST",
    length: int | None = None,
    content_type: str = "application/json",
    accept: str = "*/*",
) -> bytes:
    """Print a request; ``length`` is what it declares in place of its body's length."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
    if body is None:
        return head.encode() + b"\r\n"
    declared = len(body) if length is None else length
    return f"{head}Content-Type: {content_type}\r\nContent-Length: {declared}\r\n\r\n".encode() + body


def post(path: str, body: dict[str, Any], **options: Any) -> bytes:
    """Print a request with a JSON body."""
    return http(path, orjson.dumps(body), **options)


class Texts:
    """A few hundred texts that the requests draw from, most of them short."""

    def __init__(self, reference: Reference, count: int = 400, seed: int = 5) -> None:
        chance = random.Random(seed)
        self._texts: list[str] = []
        self.long: list[str] = []
        for number in range(count):
            words = chance.choices(_WORDS, k=chance.randrange(2, 9) if number % 20 else chance.randrange(40, 90))
            text = " ".join(words).capitalize() + "."
            (self._texts if number % 20 else self.long).append(text)
        self._reference = reference

    def one(self, chance: random.Random) -> str:
        """A text, one in fifty long."""
        return chance.choice(self.long if chance.random() < 0.02 else self._texts)

    def some(self, chance: random.Random, most: int) -> list[str]:
        """Two texts at least."""
        return [self.one(chance) for _ in range(chance.randrange(2, most + 1))]


_TEXT = (
    "the a of in on under capital city river mountain force gravity energy light water fire stone bridge "
    "engine music paper book letter number question answer small large quick slow bright dark old new "
    "early late morning night winter summer market money law science history language grammar sentence "
    "vector token model memory network signal noise pattern shape walks runs pulls carries opens closes "
    "finds loses builds breaks writes reads hears sees grows falls rises moves stays begins ends with "
    "without before after between among against through around above below near far always never often "
    "rarely twice once"
)
_WORDS = _TEXT.split()

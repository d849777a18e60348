"""A byte stream → its lines, with their numbers and where they end; memory stays flat however long a line is."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cluster.errors import InvalidRequest

LONGEST_LINE_BYTES = 16 * 1024 * 1024
_DRAIN_BYTES = 1024 * 1024
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its break; ``end`` is the offset in the stream behind it."""

    number: int
    content: bytes
    end: int
    fault: str | None = None


def read_lines(stream: BinaryIO, name: str) -> Iterator[Line]:
    """Yield the lines of a stream; a UTF-8 byte order mark is taken off the first.

    A line of more than 16 MiB is read past and yielded empty, with a fault.

    Raises:
        InvalidRequest: the stream is UTF-16, or cannot be read on.
    """
    number = end = 0
    while True:
        content, size = _next(stream, name)
        if not size:
            return
        number += 1
        end += size
        if number == 1:
            if content.startswith(_UTF16_MARKS):
                raise InvalidRequest(f"{name} is UTF-16; save it as UTF-8")
            content = content.removeprefix(codecs.BOM_UTF8)
        if size > len(content) + len(codecs.BOM_UTF8) + 2:
            yield Line(number, b"", end, f"{size} bytes; a line may have {LONGEST_LINE_BYTES}; split it")
        else:
            yield Line(number, content, end)


def decode(content: bytes) -> str:
    """Return a line's text.

    Raises:
        ValueError: it is not UTF-8; the message says which byte, in a sentence.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(not_utf8(content[error.start], error.start)) from error


def not_utf8(byte: int, position: int) -> str:
    """Return the sentence on a byte that is not UTF-8."""
    return f"byte {position + 1} (0x{byte:02x}) is not UTF-8; convert the line to UTF-8"


def _next(stream: BinaryIO, name: str) -> tuple[bytes, int]:
    """Return the next line without its break and its size with it; of a line that is too long only the beginning."""
    try:
        raw = stream.readline(LONGEST_LINE_BYTES + 2)
        size = len(raw)
        if size == LONGEST_LINE_BYTES + 2 and not raw.endswith(b"\n"):
            raw = raw[:1]
            rest = b""
            while not rest.endswith(b"\n") and (rest := stream.readline(_DRAIN_BYTES)):
                size += len(rest)
    except OSError as error:
        raise InvalidRequest(f"{name} cannot be read on: {error.strerror}") from error
    return raw.removesuffix(b"\n").removesuffix(b"\r"), size

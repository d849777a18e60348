"""Bodies and their fields: JSON in, typed values out, and an error that names the field for everything else."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, TypeVar

import orjson

from cluster.config import Limits
from cluster.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType, nearest

Choice = TypeVar("Choice", bound=enum.StrEnum)

# Names end up in messages, and the search for the nearest valid one takes time with the square of their length.
_MAX_NAME_CHARACTERS = 256
_SHOWN_NAMES = 16
_SHOWN_CHARACTERS = 60


def read_json(raw: bytes, content_type: str | None, limits: Limits) -> dict[str, Any]:
    """Parse a request body.

    orjson refuses what other parsers let pass (NaN, lone surrogates, invalid UTF-8) and bounds the nesting depth.

    Raises:
        UnsupportedMediaType: the content type is not JSON.
        PayloadTooLarge: the body, or a text in it, is over the limit.
        InvalidRequest: it is not one JSON object.
    """
    if content_type:
        kind = content_type.partition(";")[0].strip().lower()
        if kind and kind != "application/json" and not kind.endswith("+json"):
            raise UnsupportedMediaType(
                f"the body's content type is {kind!r}; send it as content-type: application/json"
            )
    if len(raw) > limits.max_body_bytes:
        raise PayloadTooLarge(
            f"the body has {len(raw)} bytes and the limit is {limits.max_body_bytes}; send it in parts"
        )
    if not raw:
        raise InvalidRequest("the body is empty; send a JSON object")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error.msg} at byte {error.pos}") from error
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body is {describe(body)}; send a JSON object")
    if len(raw) > limits.max_text_bytes:
        _check_texts(body, limits.max_text_bytes)
    return body


def _check_texts(body: dict[str, Any], most_bytes: int) -> None:
    """Check every text: one that is far longer than any model takes would hold up whoever reads it."""
    for name, member in body.items():
        # No recursion: a body may be nested as deeply as Python's own stack.
        left: list[Any] = [[member]]
        while left:
            value = left.pop()
            for inner in value.values() if isinstance(value, dict) else value:
                if isinstance(inner, str):
                    if 4 * len(inner) > most_bytes and (size := len(inner.encode())) > most_bytes:
                        raise PayloadTooLarge(
                            f"{name[:60]} has a text of {size} bytes and the limit of one text is {most_bytes}; send it in parts",
                            name[:60],
                        )
                elif inner and isinstance(inner, (dict, list)):
                    left.append(inner)


def describe(value: object) -> str:
    """Name a JSON value for an error message, short whatever its size."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"[:60]
    if isinstance(value, str):
        return f"the string {value[:40]!r}" + ("…" if len(value) > 40 else "")
    return "a list" if isinstance(value, list) else "an object"


class Fields:
    """Reads the fields of one object and remembers which were known.

    A field that is null counts as absent, since typed clients send every optional field so.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body
        self._known: set[str] = {"strict"}

    def raw(self, name: str) -> Any:
        """Return the field as it came, None if absent."""
        self._known.add(name)
        return self._body.get(name)

    def ignore(self, *names: str) -> None:
        """Declare fields that real clients send and that mean nothing here."""
        self._known.update(names)

    def text(self, name: str) -> str | None:
        """Return a string field that names something, of at most 256 characters."""
        value = self.raw(name)
        if value is not None and (not isinstance(value, str) or len(value) > _MAX_NAME_CHARACTERS):
            raise _wrong(name, f"a string of at most {_MAX_NAME_CHARACTERS} characters", value)
        return value

    def flag(self, name: str) -> bool | None:
        """Return a boolean field."""
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            raise _wrong(name, "true or false", value)
        return value

    def integer(self, name: str, least: int, most: int = 2**31 - 1) -> int | None:
        """Return an integer field within bounds."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _wrong(name, f"an integer from {least} to {most}", value)
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        """Return a number field within bounds."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise _wrong(name, f"a number from {least:g} to {most:g}", value)
        return float(value)

    def choice(self, name: str, kind: type[Choice], *, without: Choice | None = None) -> Choice | None:
        """Return a field that takes one of a few words: the values of ``kind`` but for ``without``."""
        value = self.raw(name)
        if value is None:
            return None
        valid = [member.value for member in kind if member is not without]
        if not isinstance(value, str) or value not in valid:
            close = nearest(value[:_MAX_NAME_CHARACTERS], valid) if isinstance(value, str) else ""
            raise InvalidRequest(f"{name} is {describe(value)}{close}; send one of: {', '.join(valid)}", name)
        return kind(value)

    def unknown(self) -> list[str]:
        """Return the names of the fields that nothing has read, at most 16 and 60 characters of each.

        Raises:
            InvalidRequest: there are some, and the body says ``"strict": true``; or ``strict`` is no boolean.
        """
        strict = self.flag("strict")
        names = [name for name in self._body if name not in self._known]
        if names and strict:
            listed = ", ".join(f"{name[:60]!r}{nearest(name[:60], self._known)}" for name in names[:16])
            raise InvalidRequest(f"unknown fields: {listed}; remove them or leave out strict", names[0][:60])
        return [name[:_SHOWN_CHARACTERS] for name in names[:_SHOWN_NAMES]]


def _wrong(name: str, expected: str, got: object) -> InvalidRequest:
    return InvalidRequest(f"{name} is {describe(got)}; send {expected}", name)

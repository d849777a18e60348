"""The ``input`` of an embeddings request: texts, token ids, and llama-server's mixed forms."""

from __future__ import annotations

from typing import Any

from cluster.api.body import describe
from cluster.calls import Input
from cluster.errors import InvalidRequest, PayloadTooLarge, PoolhouseError

_SHOWN = 16
_NONE = object()


def parse_inputs(value: Any, param: str, max_items: int) -> list[Input]:
    """Return one entry for each sequence to encode.

    A string is one text, a list of integers one sequence of token ids, a list of both one mixed prompt (llama-server's
    form); a list of any of these is as many. ``{"prompt_string": …}`` and ``{"content": [{"type": "text", …}]}`` are texts.

    Raises:
        InvalidRequest: names every bad item at once.
        PayloadTooLarge: more items than the limit.
    """
    if value is None:
        raise InvalidRequest(f"{param} is missing; send a string, a list of strings, or token ids", param)
    if not isinstance(value, list):
        return [_item(value, param)]
    if not value:
        raise InvalidRequest(f"{param} is an empty list; send at least one item", param)
    kinds = set(map(type, value))
    if _is_one_sequence(kinds):
        return [_item(value, param)]
    if len(value) > max_items:
        raise PayloadTooLarge(f"{param} has {len(value)} items and the limit is {max_items}; send it in parts", param)
    if kinds == {str} and all(value):
        return list(value)
    items: list[Input] = []
    errors: list[tuple[int, PoolhouseError]] = []
    for index, item in enumerate(value):
        try:
            items.append(_item(item, f"{param}[{index}]"))
        except InvalidRequest as error:
            errors.append((index, error))
    if errors:
        raise merged_errors(errors, param, len(value))
    return items


def is_list_of_inputs(value: Any) -> bool:
    """Whether ``value`` is a list whose members are inputs of their own, rather than one input."""
    return isinstance(value, list) and not _is_one_sequence(set(map(type, value)))


def _is_one_sequence(kinds: set[type]) -> bool:
    """Whether a list of values of these types is one sequence.

    A number among scalars makes it one: [1, 2.5] is a bad sequence, not two bad items.
    """
    return bool(kinds & {int, float}) and not kinds & {list, dict}


def _item(value: Any, where: str) -> Input:
    if isinstance(value, str):
        if not value:
            raise InvalidRequest(f"{where} is an empty string; send at least one character", where)
        return value
    if isinstance(value, dict):
        return _item(_text_of(value, where), where)
    if isinstance(value, list) and value:
        bad = next((part for part in value if not is_part(part)), _NONE)
        if bad is not _NONE:
            raise InvalidRequest(f"{where} has {describe(bad)}, which is neither a token id nor a string", where)
        if not any(part != "" for part in value):
            raise InvalidRequest(f"{where} has empty strings only; send at least one character", where)
        return value
    expected = "a non-empty string, or a non-empty list of token ids"
    raise InvalidRequest(f"{where} is {'an empty list' if value == [] else describe(value)}; send {expected}", where)


def is_part(value: object) -> bool:
    """Whether a JSON value may stand in a mixed prompt: a string, or an integer that int32 can hold and is not negative."""
    return type(value) is str or (type(value) is int and 0 <= value < 2**31)


def _text_of(value: dict[str, Any], where: str) -> str:
    if isinstance(value.get("prompt_string"), str):
        text: str = value["prompt_string"]
        return text
    if isinstance(value.get("text"), str):
        text = value["text"]
        return text
    parts = value.get("content")
    if isinstance(parts, list) and parts:
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type", "text") == "text"]
        if len(texts) == len(parts) and all(isinstance(text, str) for text in texts):
            return "".join(str(text) for text in texts)
    raise InvalidRequest(f'{where} is an object without a text; send {{"prompt_string": "…"}} or a string', where)


def merged_errors(errors: list[tuple[int, PoolhouseError]], param: str, items: int) -> InvalidRequest:
    """Return one error for several bad items."""
    if len(errors) == 1:
        return InvalidRequest(errors[0][1].message, errors[0][1].param)
    more = f" and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    listed = "; ".join(error.message for _, error in errors[:_SHOWN])
    return InvalidRequest(
        f"{len(errors)} of {items} items are bad: {listed}{more}",
        ", ".join(f"{param}[{index}]" for index, _ in errors[:_SHOWN]) + more,
    )

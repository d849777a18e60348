"""The ``input`` of an embeddings request: texts, token ids, and llama-server's mixed forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cluster.api.body import describe
from cluster.calls import Input
from cluster.errors import InvalidRequest, PayloadTooLarge, PoolhouseError
from cluster.item_errors import several

_NONE = object()


def parse_inputs(value: Any, param: str, max_items: int) -> list[Input]:
    """Return one entry for each sequence to encode.

    A string is one text, a list of integers one sequence of token ids, a list of both one mixed prompt (llama-server's
    form); a list of any of these is as many. ``{"prompt_string": …}`` and ``{"content": [{"type": "text", …}]}`` are texts,
    whatever stands beside them in the list.

    Raises:
        InvalidRequest: names every bad item at once.
        PayloadTooLarge: more items than the limit, or as many parts of mixed prompts.
    """
    if value is None:
        raise InvalidRequest(f"{param} is missing; send a string, a list of strings, or token ids", param)
    if not isinstance(value, list):
        return [_lone(value, param)]
    if not value:
        raise InvalidRequest(f"{param} is an empty list; send at least one item", param)
    kinds = set(map(type, value))
    if _is_one_sequence(kinds):
        return of_few_parts([_lone(value, param)], param, max_items)
    check_limit(value, param, max_items)
    if kinds == {str} and all(value):
        return list(value)
    read = [_item(item) for item in value]
    items = [item for item in read if item is not None]
    if len(items) < len(value):
        bad = [index for index, item in enumerate(read) if item is None]
        raise bad_items(bad, lambda index: _fault(value[index], f"{param}[{index}]"), param, len(value))
    return of_few_parts(items, param, max_items)


def check_limit(items: Sequence[object], param: str, max_items: int) -> None:
    """Check the number of a request's items.

    Raises:
        PayloadTooLarge: it is above the limit.
    """
    if len(items) > max_items:
        raise PayloadTooLarge(f"{param} has {len(items)} items and the limit is {max_items}; send it in parts", param)


def of_few_parts(items: list[Input], param: str, max_items: int) -> list[Input]:
    """Return ``items``. Each part of a mixed prompt is tokenized by itself, so that it takes as much work as an item."""
    parts = sum(len(item) for item in items if isinstance(item, list) and str in set(map(type, item)))
    if parts > max_items:
        raise PayloadTooLarge(
            f"{param} mixes texts and token ids in {parts} parts and the limit is {max_items}; send texts, or token ids alone",
            param,
        )
    return items


def is_list_of_inputs(value: Any) -> bool:
    """Whether ``value`` is a list whose members are inputs of their own, rather than one input."""
    return isinstance(value, list) and not _is_one_sequence(set(map(type, value)))


def _is_one_sequence(kinds: set[type]) -> bool:
    """Whether a list of values of these types is one sequence.

    A number among scalars makes it one: [1, 2.5] is a bad sequence, not two bad items.
    """
    return bool(kinds & {int, float}) and not kinds & {list, dict}


def _lone(value: Any, param: str) -> Input:
    item = _item(value)
    if item is None:
        raise InvalidRequest(_fault(value, param), param)
    return item


def _item(value: Any) -> Input | None:
    """Return one input, or None for what is none: most of a large request may be bad, so that must be cheap to see."""
    if isinstance(value, dict):
        value = _text_of(value)
    if isinstance(value, str):
        return value or None
    if isinstance(value, list) and all(map(is_part, value)) and any(part != "" for part in value):
        return value
    return None


def _fault(value: Any, where: str) -> str:
    """Say what is wrong with a value that is no input."""
    if isinstance(value, dict):
        text = _text_of(value)
        if text is None:
            return _object_fault(value, where)
        value = text
    if value == "":
        return f"{where} is an empty string; send at least one character"
    if isinstance(value, list) and value:
        bad = next((part for part in value if not is_part(part)), _NONE)
        if bad is not _NONE:
            return f"{where} has {describe(bad)}, which is neither a token id nor a string"
        return f"{where} has empty strings only; send at least one character"
    expected = "a non-empty string, or a non-empty list of token ids"
    return f"{where} is {'an empty list' if value == [] else describe(value)}; send {expected}"


def is_part(value: object) -> bool:
    """Whether a JSON value may stand in a mixed prompt: a string, or an integer that int32 can hold and is not negative."""
    return type(value) is str or (type(value) is int and 0 <= value < 2**31)


def _text_of(value: dict[str, Any]) -> str | None:
    """Return the text of an object, None where it has none or more than text."""
    if value.get("multimodal_data"):
        return None
    for name in ("prompt_string", "text"):
        text = value.get(name)
        if isinstance(text, str):
            return text
    parts = value.get("content")
    if isinstance(parts, str):
        return parts
    if isinstance(parts, list) and parts:
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type", "text") == "text"]
        if len(texts) == len(parts) and all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
    return None


def _object_fault(value: dict[str, Any], where: str) -> str:
    if value.get("multimodal_data"):
        return f"{where}.multimodal_data is not empty; send text only, as the models here read nothing else"
    parts = value.get("content")
    for index, part in enumerate(parts if isinstance(parts, list) else []):
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            return (
                f"{where} is an object without a text: content[{index}] is of type {kind[:40]!r}; "
                'send parts of type "text" only, as the models here read nothing else'
            )
    return (
        f'{where} is an object without a text; send {{"prompt_string": "…"}}, '
        '{"content": [{"type": "text", "text": "…"}]} or a string'
    )


def bad_items(bad: Sequence[int], fault: Callable[[int], str], param: str, items: int) -> PoolhouseError:
    """Return one error for all bad items of a request.

    Args:
        bad: their indices.
        fault: says what is wrong with one, and where; asked for those that are named.
    """
    if len(bad) == 1:
        return InvalidRequest(fault(bad[0]), f"{param}[{bad[0]}]")
    return several(InvalidRequest, "are bad", bad, fault, param, items)

"""Queries and documents of a rerank request, whatever its dialect calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.api.body import describe
from cluster.api.inputs import bad_items, check_limit
from cluster.calls import RerankAnswer
from cluster.errors import EmptyInput, InvalidRequest


def parse_text(value: Any, param: str) -> str:
    """Return a text that must not be empty.

    Raises:
        InvalidRequest: it is something else.
        EmptyInput: it is empty.
    """
    if isinstance(value, str) and value:
        return value
    if value == "":
        raise EmptyInput(f"{param} is an empty string; send at least one character", param)
    what = "missing" if value is None else describe(value)
    raise InvalidRequest(f"{param} is {what}; send a string", param)


def parse_documents(value: Any, param: str, max_items: int) -> list[str]:
    """Return the documents, each a string or an object ``{"text": …}``; one that is empty is a document too.

    Raises:
        InvalidRequest: names every bad document at once.
        EmptyInput: there is none.
        PayloadTooLarge: there are more than the limit.
    """
    if not isinstance(value, list):
        what = "missing" if value is None else describe(value)
        raise InvalidRequest(f"{param} is {what}; send a list of strings", param)
    check_count(value, param, max_items, "at least one document")
    if set(map(type, value)) == {str}:
        return value
    texts = [item.get("text") if isinstance(item, dict) else item for item in value]
    documents = [text for text in texts if isinstance(text, str)]
    if len(documents) < len(texts):
        bad = [index for index, text in enumerate(texts) if not isinstance(text, str)]

        def fault(index: int) -> str:
            what = "an object without a text" if isinstance(value[index], dict) else describe(value[index])
            return f'{param}[{index}] is {what}; send a string or {{"text": "…"}}'

        raise bad_items(bad, fault, param, len(value))
    return documents


def check_count(items: Sequence[object], param: str, max_items: int, expected: str) -> None:
    """Check how many items a request has.

    Raises:
        EmptyInput: none; it should have been what is ``expected``.
        PayloadTooLarge: more than the limit.
    """
    if not items:
        raise EmptyInput(f"{param} is an empty list; send {expected}", param)
    check_limit(items, param, max_items)


def result_members(answer: RerankAnswer, index: int) -> dict[str, int]:
    """What was encoded of one document, and what truncation removed."""
    return {"tokens": answer.tokens[index], "truncated_tokens": answer.cut_tokens[index]}

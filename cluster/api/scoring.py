"""What the dialects that rerank and classify have in common: the fields of a call, and the order of its answer."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.api.body import Fields
from cluster.api.documents import parse_documents, parse_text
from cluster.api.openai import parse_timeout_s, parse_truncate
from cluster.calls import ClassifyCall, RerankAnswer, RerankCall, Strategy
from cluster.config import Limits, Truncate
from cluster.errors import InvalidRequest
from cluster.types import Lane


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A call, and what its answer should look like."""

    call: RerankCall
    return_documents: bool
    ignored: list[str]


class TruncationSide(enum.StrEnum):
    """The end of a text that is cut."""

    LEFT = "left"
    RIGHT = "right"


def rerank_call(
    fields: Fields, headers: Mapping[str, str], limits: Limits, *, unit_interval: bool, param: str = "documents"
) -> RerankCall:
    """Read one query and its documents.

    Args:
        param: name of the documents' field.

    Raises:
        InvalidRequest: a field has a wrong type or value.
        PayloadTooLarge: more documents than the limit.
    """
    return RerankCall(
        queries=[parse_text(fields.raw("query"), "query")],
        documents=parse_documents(fields.raw(param), param, limits.max_items),
        unit_interval=unit_interval,
        top_n=fields.integer("top_n", 0),
        param=param,
        **common_members(fields, headers),
    )


def classify_call(
    fields: Fields,
    headers: Mapping[str, str],
    inputs: list[str | tuple[str, str]],
    *,
    unit_interval: bool,
    truncate: Truncate | None,
    param: str,
) -> ClassifyCall:
    """Read the fields that every request for a head's outputs has; raises as ``rerank_call``."""
    return ClassifyCall(
        inputs=inputs,
        model=fields.text("model"),
        truncate=truncate,
        unit_interval=unit_interval,
        lane=fields.choice("lane", Lane),
        timeout_s=parse_timeout_s(fields, headers),
        param=param,
    )


def common_members(fields: Fields, headers: Mapping[str, str]) -> dict[str, Any]:
    """Read the fields that are Poolhouse's own in every dialect."""
    return {
        "model": fields.text("model"),
        "strategy": fields.choice("strategy", Strategy),
        "instruction": parse_text(fields.raw("instruction"), "instruction")
        if fields.raw("instruction") is not None
        else None,
        "document_tokens": fields.integer("max_tokens_per_doc", 1),
        "truncate": parse_truncate(fields),
        "lane": fields.choice("lane", Lane),
        "timeout_s": parse_timeout_s(fields, headers),
    }


def read_truncate_prompt_tokens(call: RerankCall, fields: Fields) -> None:
    """Read vLLM's way to ask for truncation: to so many tokens, or with -1 to what the model takes.

    Raises:
        InvalidRequest: a field has a wrong type or value.
    """
    tokens = fields.integer("truncate_prompt_tokens", -1)
    side = fields.choice("truncation_side", TruncationSide)
    if tokens is None:
        return
    if tokens == 0:
        raise InvalidRequest("truncate_prompt_tokens is 0; send -1 or at least 1", "truncate_prompt_tokens")
    call.sequence_tokens = None if tokens == -1 else tokens
    call.truncate = call.truncate or (Truncate.START if side is TruncationSide.LEFT else Truncate.END)


def best_first(answer: RerankAnswer) -> Iterator[tuple[int, float]]:
    """Yield index and score of each document that is answered, the best first."""
    return zip(answer.order.tolist(), answer.scores[answer.order].tolist(), strict=True)


def usage(tokens: int) -> dict[str, int]:
    """OpenAI's count of a request's tokens."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}

"""The rerank shape that Jina, llama-server and vLLM share, at ``/rerank`` and ``/v1/rerank``. Its scores are raw by default."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cluster.api.body import Fields
from cluster.api.documents import parse_documents, parse_text, result_members
from cluster.api.openai import parse_timeout_s, parse_truncate
from cluster.calls import RerankAnswer, RerankCall, Strategy
from cluster.config import Limits, Truncate
from cluster.errors import InvalidRequest
from cluster.types import Lane


class TruncationSide(enum.StrEnum):
    """The end of a text that is cut."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A call, and what its answer should look like."""

    call: RerankCall
    return_documents: bool
    ignored: list[str]


def parse_rerank(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> RerankRequest:
    """Read ``{"query", "documents", "top_n", "return_documents", …}``.

    Raises:
        InvalidRequest: a field has a wrong type or value.
        PayloadTooLarge: more documents than the limit.
    """
    fields = Fields(body)
    # vLLM's clients say with use_activation what raw_scores says here.
    activation = fields.flag("use_activation")
    raw = fields.flag("raw_scores")
    call = RerankCall(
        queries=[parse_text(fields.raw("query"), "query")],
        documents=parse_documents(fields.raw("documents"), "documents", limits.max_items),
        unit_interval=bool(activation) if raw is None else not raw,
        top_n=fields.integer("top_n", 0),
        **common_members(fields, headers),
    )
    read_truncate_prompt_tokens(call, fields)
    return RerankRequest(call, fields.flag("return_documents") or False, fields.unknown())


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


def format_rerank(answer: RerankAnswer, request: RerankRequest) -> bytes:
    """Print ``{"model", "object", "usage", "results": [{"index", "relevance_score", …}]}``, the best document first."""
    documents = request.call.documents
    results: list[dict[str, Any]] = []
    for index, score in zip(answer.order.tolist(), answer.scores[answer.order].tolist(), strict=True):
        result = {"index": index, "relevance_score": score, **result_members(answer, index)}
        if request.return_documents:
            result["document"] = {"text": documents[index]}
        results.append(result)
    return orjson.dumps(
        {
            "model": answer.model,
            "object": "list",
            "usage": {"prompt_tokens": answer.total_tokens, "total_tokens": answer.total_tokens},
            "results": results,
            "score_type": answer.score_type,
            "strategy": answer.strategy,
            "fingerprint": answer.fingerprint,
        }
    )

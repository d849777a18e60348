"""Cohere's ``POST /v2/rerank``: scores in [0, 1], documents cut where they are too long, errors ``{"message", "id"}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from cluster.api.body import Fields
from cluster.api.errors import error_body
from cluster.api.printing import print_members
from cluster.api.responses import Piece
from cluster.api.scoring import RerankRequest, best_first, rerank_call
from cluster.calls import RerankAnswer
from cluster.config import Limits, Truncate
from cluster.errors import PoolhouseError


def parse_rerank(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> RerankRequest:
    """Read ``{"model", "query", "documents", "top_n", "max_tokens_per_doc", …}``.

    Raises:
        InvalidRequest: a field has a wrong type or value.
        PayloadTooLarge: more documents than the limit.
    """
    fields = Fields(body)
    fields.ignore("priority")
    call = rerank_call(fields, headers, limits, unit_interval=not fields.flag("raw_scores"))
    # Cohere's service cuts what is too long, and its clients rely on that.
    call.truncate = call.truncate or Truncate.END
    return RerankRequest(call, fields.flag("return_documents") or False, fields.unknown())


def format_rerank(answer: RerankAnswer, request: RerankRequest, request_id: str) -> list[Piece]:
    """Print ``{"id", "results": [{"index", "relevance_score"}], "meta"}``."""
    results: list[dict[str, Any]] = []
    for index, score in best_first(answer):
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if answer.cut_tokens[index]:
            result["truncated_tokens"] = answer.cut_tokens[index]
        if request.return_documents:
            result["document"] = {"text": request.call.documents[index]}
        results.append(result)
    return print_members(
        {
            "id": request_id,
            "results": [],
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": answer.total_tokens},
            },
            "score_type": answer.score_type,
            "strategy": answer.strategy,
        },
        "results",
        results,
        characters_of="document",
    )


def print_error(error: PoolhouseError, request_id: str) -> tuple[int, bytes, dict[str, str]]:
    """Return status, Cohere's error body and headers."""
    status, _, headers = error_body(error)
    message = error.message.encode("utf-8", "replace").decode()
    return status, orjson.dumps({"message": message, "id": request_id}), headers

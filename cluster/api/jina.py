"""The rerank shape that Jina, llama-server and vLLM share, at ``/rerank`` and ``/v1/rerank``. Its scores are raw by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.api.body import Fields
from cluster.api.documents import result_members
from cluster.api.printing import print_members
from cluster.api.responses import Piece
from cluster.api.scoring import RerankRequest, best_first, read_truncate_prompt_tokens, rerank_call, usage
from cluster.calls import RerankAnswer
from cluster.config import Limits


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
    call = rerank_call(fields, headers, limits, unit_interval=bool(activation) if raw is None else not raw)
    read_truncate_prompt_tokens(call, fields)
    return RerankRequest(call, fields.flag("return_documents") or False, fields.unknown())


def format_rerank(answer: RerankAnswer, request: RerankRequest) -> list[Piece]:
    """Print ``{"model", "object", "usage", "results": [{"index", "relevance_score", …}]}``, the best document first."""
    documents = request.call.documents
    results: list[dict[str, Any]] = []
    for index, score in best_first(answer):
        result: dict[str, Any] = {"index": index, "relevance_score": score, **result_members(answer, index)}
        if request.return_documents:
            result["document"] = {"text": documents[index]}
        results.append(result)
    return print_members(
        {
            "model": answer.model,
            "object": "list",
            "usage": usage(answer.total_tokens),
            "results": [],
            "score_type": answer.score_type,
            "strategy": answer.strategy,
            "fingerprint": answer.fingerprint,
        },
        "results",
        results,
        characters_of="document",
    )

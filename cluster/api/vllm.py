"""vLLM's ``POST /score`` (texts in pairs) and ``POST /classify``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.api.body import Fields, describe
from cluster.api.documents import check_count, parse_documents, parse_text
from cluster.api.openai import parse_truncate
from cluster.api.printing import print_members
from cluster.api.responses import Piece
from cluster.api.scoring import classify_call, common_members, read_truncate_prompt_tokens, usage
from cluster.calls import ClassifyAnswer, ClassifyCall, RerankAnswer, RerankCall
from cluster.config import Limits
from cluster.errors import InvalidRequest

_QUERIES = ("text_1", "queries", "data_1")
_DOCUMENTS = ("text_2", "documents", "items", "data_2")


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """A call, and the fields of its body that mean nothing here."""

    call: ClassifyCall
    ignored: list[str]


def parse_score(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> tuple[RerankCall, list[str]]:
    """Read one text and many, or as many of each; vLLM's names for them have changed, and all are taken.

    Raises:
        InvalidRequest: a field has a wrong type or value.
        PayloadTooLarge: more texts than the limit.
    """
    fields = Fields(body)
    query_param, first = _first_of(fields, _QUERIES)
    param, second = _first_of(fields, _DOCUMENTS)
    queries = parse_documents([first] if isinstance(first, (str, dict)) else first, query_param, limits.max_items)
    documents = parse_documents([second] if isinstance(second, (str, dict)) else second, param, limits.max_items)
    for query in queries:
        parse_text(query, query_param)
    if len(queries) not in (1, len(documents)):
        raise InvalidRequest(
            f"{query_param} has {len(queries)} texts and {param} has {len(documents)}; send one, or as many of each",
            query_param,
        )
    activation, raw = fields.flag("use_activation"), fields.flag("raw_scores")
    call = RerankCall(
        queries=queries,
        documents=documents,
        unit_interval=bool(activation) if raw is None else not raw,
        query_param=query_param,
        param=param,
        **common_members(fields, headers),
    )
    read_truncate_prompt_tokens(call, fields)
    return call, fields.unknown()


def format_score(answer: RerankAnswer, request_id: str, created_s: int) -> list[Piece]:
    """Print ``{"data": [{"index", "object": "score", "score"}], …}`` in the order of the request."""
    data = [
        {"index": index, "object": "score", "score": score, "truncated_tokens": answer.cut_tokens[index]}
        for index, score in enumerate(answer.scores.tolist())
    ]
    return print_members(
        {
            "id": f"score-{request_id}",
            "object": "list",
            "created": created_s,
            "model": answer.model,
            "data": [],
            "usage": usage(answer.total_tokens),
            "score_type": answer.score_type,
            "strategy": answer.strategy,
        },
        "data",
        data,
    )


def parse_classify(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> ClassifyRequest:
    """Read ``{"input": text | [text, …]}`` or ``{"pairs": [[text, text], …]}``, and ``raw_scores``.

    Raises:
        InvalidRequest: a field has a wrong type or value.
        PayloadTooLarge: more items than the limit.
    """
    fields = Fields(body)
    pairs = fields.raw("pairs")
    param = "input" if pairs is None else "pairs"
    value = fields.raw("input") if pairs is None else pairs
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        what = "missing" if value is None else describe(value)
        raise InvalidRequest(f"{param} is {what}; send texts as input, or pairs of texts as pairs", param)
    check_count(items, param, limits.max_items, "at least one item")
    named = [(f"{param}[{index}]" if isinstance(value, list) else param, item) for index, item in enumerate(items)]
    activation, raw = fields.flag("use_activation"), fields.flag("raw_scores")
    call = classify_call(
        fields,
        headers,
        [parse_text(item, where) if pairs is None else _pair(item, where) for where, item in named],
        unit_interval=activation is not False if raw is None else not raw,
        truncate=parse_truncate(fields),
        param=param,
    )
    return ClassifyRequest(call, fields.unknown())


def format_classify(answer: ClassifyAnswer, request_id: str, created_s: int, unit_interval: bool) -> list[Piece]:
    """Print ``{"data": [{"index", "label", "probs", "num_classes"}], "labels", …}``; raw outputs are called ``scores``."""
    kind = "probs" if unit_interval else "scores"
    best = np.argmax(answer.scores, axis=1).tolist()
    data = [
        {
            "index": index,
            "label": answer.labels[best[index]],
            kind: row,
            "num_classes": len(row),
            "tokens": answer.tokens[index],
            "truncated_tokens": answer.cut_tokens[index],
        }
        for index, row in enumerate(answer.scores.tolist())
    ]
    return print_members(
        {
            "id": f"classify-{request_id}",
            "object": "list",
            "created": created_s,
            "model": answer.model,
            "data": [],
            "labels": answer.labels,
            "usage": usage(sum(answer.tokens)),
            "score_type": answer.score_type,
            "fingerprint": answer.fingerprint,
        },
        "data",
        data,
    )


def _first_of(fields: Fields, names: tuple[str, ...]) -> tuple[str, Any]:
    found = [(name, value) for name in names if (value := fields.raw(name)) is not None]
    return found[0] if found else (names[0], None)


def _pair(value: Any, where: str) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidRequest(f"{where} is {describe(value)}; send a list of two texts", where)
    return parse_text(value[0], where), parse_text(value[1], where)

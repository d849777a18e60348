"""``rerank`` and ``classify``: what they send, and how the parts of an answer become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.client.answers import Classification, Ranking
from cluster.client.decoding import read_labels, read_scores
from cluster.client.operations import OnErrorName, Operation, RequestSize, members_of, on_error_of
from cluster.client.packing import Job, print_pair, print_string
from cluster.client.settling import Form, Settled
from cluster.errors import InvalidRequest, PoolhouseError


@dataclass(frozen=True, slots=True)
class Scored:
    """(index, score) of some documents; the part of a ranking that one job yields."""

    pairs: list[tuple[int, float]]
    tokens: int
    members: dict[str, Any]
    errors: dict[int, PoolhouseError]


def reranking(
    query: str,
    *,
    top_n: int | None,
    model: str | None,
    instruction: str | None,
    strategy: str | None,
    raw_scores: bool | None,
    timeout_s: float | None,
    on_error: OnErrorName,
    size: RequestSize,
) -> Operation[Scored]:
    """Return the operation behind ``rerank``.

    ``top_n`` is not sent: a request holds a part of the documents, and the best of all are known at the end.
    """
    if top_n is not None and top_n < 1:
        raise InvalidRequest(f"top_n is {top_n}; give at least 1, or None for all", "top_n")
    members = members_of(query=query, model=model, instruction=instruction, strategy=strategy, raw_scores=raw_scores)
    # Each document is encoded with the query, so the query takes its share of a request.
    per_request = max(1, size.bytes // (len(query.encode("utf-8", "replace")) + 1))
    return Operation(
        form=Form("/v1/rerank", "documents", members),
        print_item=print_string,
        size=RequestSize(min(size.items, per_request), size.bytes),
        read=_scored,
        on_error=on_error_of(on_error),
        timeout_s=timeout_s,
    )


def _scored(job: Job, settled: Settled) -> Scored:
    pairs: list[tuple[int, float]] = []
    tokens = 0
    members: dict[str, Any] = {}
    for items, response in settled.answers:
        scores, members = read_scores(response, len(items))
        pairs.extend((items[position].index, score) for position, score in scores)
        usage = members.get("usage")
        tokens += int(usage.get("total_tokens", 0)) if isinstance(usage, dict) else 0
    return Scored(pairs, tokens, members, settled.errors)


def ranking(parts: list[Scored], documents: list[str] | None, top_n: int | None) -> Ranking:
    """Merge the parts of a ranking, the best first."""
    pairs = [pair for part in parts for pair in part.pairs]
    indices = np.array([index for index, _ in pairs], dtype=np.int64)
    scores = np.array([score for _, score in pairs], dtype=np.float32)
    order = np.lexsort((indices, -scores))[:top_n]
    members = next((part.members for part in parts if part.members), {})
    return Ranking(
        indices=indices[order],
        scores=scores[order],
        documents=None if documents is None else [documents[index] for index in indices[order].tolist()],
        score_type=str(members.get("score_type", "")),
        model=str(members.get("model", "")),
        tokens=sum(part.tokens for part in parts),
        errors={index: error for part in parts for index, error in part.errors.items()},
    )


@dataclass(frozen=True, slots=True)
class Labelled:
    """The part of a classification that one job yields; a skipped item has neither label nor scores."""

    labels: list[str | None]
    scores: list[list[float] | None]
    score_type: str
    model: str
    errors: dict[int, PoolhouseError]


def classifying(
    *,
    pairs: bool,
    model: str | None,
    raw_scores: bool | None,
    timeout_s: float | None,
    on_error: OnErrorName,
    size: RequestSize,
) -> Operation[Labelled]:
    """Return the operation behind ``classify``."""
    return Operation(
        form=Form("/v1/classify", "pairs" if pairs else "input", members_of(model=model, raw_scores=raw_scores)),
        print_item=print_pair if pairs else _print_classified,
        size=size,
        read=_labelled,
        on_error=on_error_of(on_error),
        timeout_s=timeout_s,
    )


def _print_classified(value: object) -> bytes:
    if value == "":
        raise InvalidRequest("is an empty text; pass at least one character")
    return print_string(value)


def _labelled(job: Job, settled: Settled) -> Labelled:
    part = Labelled([None] * len(job), [None] * len(job), "", "", settled.errors)
    score_type = model = ""
    for items, response in settled.answers:
        labels, rows, score_type, members = read_labels(response, len(items))
        model = str(members.get("model", ""))
        for item, label, row in zip(items, labels, rows, strict=True):
            part.labels[item.index - job.start] = label
            part.scores[item.index - job.start] = row
    return Labelled(part.labels, part.scores, score_type, model, part.errors)


def classification(parts: list[Labelled]) -> Classification:
    """Merge the parts of a classification, in order."""
    rows = [row for part in parts for row in part.scores]
    width = max((len(row) for row in rows if row is not None), default=0)
    scores = np.full((len(rows), width), np.nan, dtype=np.float32)
    for position, row in enumerate(rows):
        if row is not None:
            scores[position] = row
    return Classification(
        labels=[label for part in parts for label in part.labels],
        scores=scores,
        score_type=next((part.score_type for part in parts if part.score_type), ""),
        model=next((part.model for part in parts if part.model), ""),
        errors={index: error for part in parts for index, error in part.errors.items()},
    )

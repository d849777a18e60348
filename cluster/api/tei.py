"""text-embeddings-inference: ``POST /rerank`` with ``texts``, ``/predict``, ``/similarity``, and its error body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cluster.api.body import Fields, describe
from cluster.api.documents import check_count, parse_documents, parse_text
from cluster.api.errors import error_body
from cluster.api.openai import parse_timeout_s
from cluster.api.printing import print_list
from cluster.api.responses import Piece
from cluster.api.scoring import RerankRequest, best_first, classify_call, rerank_call
from cluster.calls import ClassifyAnswer, ClassifyCall, RerankAnswer, RerankCall, Strategy
from cluster.config import Limits, Truncate
from cluster.errors import (
    EmptyInput,
    EngineError,
    InvalidRequest,
    Overloaded,
    PoolhouseError,
    PoolingUnavailable,
    Unauthorized,
)


def parse_rerank(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> RerankRequest:
    """Read ``{"query", "texts", "raw_scores", "return_text", "truncate", "truncation_direction", …}``.

    Raises:
        InvalidRequest: a field has a wrong type or value.
        PayloadTooLarge: more texts than the limit.
    """
    fields = Fields(body)
    call = rerank_call(fields, headers, limits, unit_interval=not fields.flag("raw_scores"), param="texts")
    call.truncate = _directed(call.truncate, fields)
    return RerankRequest(call, fields.flag("return_text") or False, fields.unknown())


def format_rerank(answer: RerankAnswer, request: RerankRequest) -> list[Piece]:
    """Print the bare list ``[{"index", "text"?, "score"}]``, the best text first."""
    results: list[dict[str, Any]] = []
    for index, score in best_first(answer):
        result: dict[str, Any] = {"index": index, "score": score}
        if request.return_documents:
            result["text"] = request.call.documents[index]
        if answer.cut_tokens[index]:
            result["truncated_tokens"] = answer.cut_tokens[index]
        results.append(result)
    return print_list(results, characters_of="text")


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A call, and whether its answer is a list for each of several inputs."""

    call: ClassifyCall
    is_batch: bool
    ignored: list[str]


def parse_predict(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> PredictRequest:
    """Read ``{"inputs": text | [text, text] | [[text] | [text, text], …], "raw_scores", "truncate", …}``.

    Raises:
        InvalidRequest: a field has a wrong type or value.
        PayloadTooLarge: more inputs than the limit.
    """
    fields = Fields(body)
    value = fields.raw("inputs")
    is_batch = isinstance(value, list) and any(isinstance(item, list) for item in value)
    items = value if is_batch or value == [] else [value]
    check_count(items, "inputs", limits.max_items, "a text or a pair of texts")
    call = classify_call(
        fields,
        headers,
        [_sequence(item, f"inputs[{index}]" if is_batch else "inputs") for index, item in enumerate(items)],
        unit_interval=not fields.flag("raw_scores"),
        truncate=_directed(_truncate(fields), fields),
        param="inputs",
    )
    return PredictRequest(call, is_batch, fields.unknown())


def format_predict(answer: ClassifyAnswer, request: PredictRequest) -> list[Piece]:
    """Print ``[{"score", "label"}]``, the highest score first, for the input or for each."""
    rows = [
        sorted(
            ({"score": score, "label": label} for score, label in zip(row, answer.labels, strict=True)),
            key=lambda prediction: -float(prediction["score"]),
        )
        for row in answer.scores.tolist()
    ]
    return print_list(rows if request.is_batch else rows[0])


def parse_similarity(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> RerankRequest:
    """Read ``{"inputs": {"source_sentence", "sentences"}, "parameters": {"truncate", "truncation_direction"}}``.

    Raises:
        InvalidRequest: a field has a wrong type or value.
        PayloadTooLarge: more sentences than the limit.
    """
    fields = Fields(body)
    inputs, parameters = fields.raw("inputs"), fields.raw("parameters") or {}
    if not isinstance(inputs, dict) or not isinstance(parameters, dict):
        raise InvalidRequest(
            f'inputs is {describe(inputs)}; send {{"source_sentence": "…", "sentences": ["…"]}}', "inputs"
        )
    options = Fields(parameters)
    param = "inputs.sentences"
    call = RerankCall(
        queries=[parse_text(inputs.get("source_sentence"), "inputs.source_sentence")],
        documents=parse_documents(inputs.get("sentences"), param, limits.max_items),
        model=fields.text("model"),
        strategy=Strategy.SIMILARITY,
        prompts=False,
        truncate=_directed(_truncate(options), options),
        timeout_s=parse_timeout_s(fields, headers),
        query_param="inputs.source_sentence",
        param=param,
    )
    return RerankRequest(call, False, [*fields.unknown(), *options.unknown()])


def format_similarity(answer: RerankAnswer) -> list[Piece]:
    """Print the cosines in the order of the sentences."""
    return print_list(answer.scores.tolist())


def print_error(error: PoolhouseError, request_id: str) -> tuple[int, bytes, dict[str, str]]:
    """Return status, TEI's error body and headers; its statuses are those that its clients are written for."""
    status, _, headers = error_body(error)
    if isinstance(error, Unauthorized):
        return status, b"", headers
    kind, status = _kind(error, status)
    message = error.message.encode("utf-8", "replace").decode()
    return status, orjson.dumps({"error": message, "error_type": kind}), headers


def _kind(error: PoolhouseError, status: int) -> tuple[str, int]:
    if isinstance(error, EmptyInput):
        return "Empty", 400
    if isinstance(error, PoolingUnavailable | EngineError):
        return "Backend", 424
    if isinstance(error, Overloaded):
        return "Overloaded", status
    if status >= 500:
        return "Unhealthy" if status == 503 else "Backend", status
    return "Validation", 422 if status == 400 else status


def _sequence(value: Any, where: str) -> str | tuple[str, str]:
    if isinstance(value, list) and len(value) in (1, 2):
        texts = [parse_text(text, where) for text in value]
        return texts[0] if len(texts) == 1 else (texts[0], texts[1])
    if isinstance(value, list):
        raise InvalidRequest(f"{where} has {len(value)} texts; send one, or two for a pair", where)
    return parse_text(value, where)


def _truncate(fields: Fields) -> Truncate | None:
    value = fields.flag("truncate")
    return None if value is None else Truncate.END if value else Truncate.NONE


def _directed(truncate: Truncate | None, fields: Fields) -> Truncate | None:
    direction = fields.text("truncation_direction")
    if direction is not None and direction.lower() not in ("left", "right"):
        raise InvalidRequest(
            f"truncation_direction is {describe(direction)}; send Left or Right", "truncation_direction"
        )
    left = direction is not None and direction.lower() == "left"
    return Truncate.START if left and truncate is Truncate.END else truncate

"""Scores of a classification head: pairs and texts in, the head's outputs out.

The outputs are a few numbers for each item, so activation happens here, where they are merged: a hop to the Pooler would cost
more than the work.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from cluster.calls import ClassifyCall, RerankCall
from cluster.item_errors import raise_item_errors
from cluster.offload import in_turns
from cluster.pairs import Pair
from cluster.rerank import to_unit_interval
from cluster.reranking.scored import Phases, Scored, query_of, raise_errors, settle_lane
from cluster.stages import Stages
from cluster.texts import TextBatch, TextOptions
from cluster.types import Float32, Lane, PoolingType, RequestFacts, ScoreType, TokenBatch


@dataclass(frozen=True, slots=True)
class Outputs:
    """A head's outputs, float32 ``[n, n_labels]``, and the tokens that they are of."""

    values: Float32
    score_type: ScoreType
    tokens: TokenBatch
    phases: Phases


async def score_pairs(stages: Stages, model: str, call: RerankCall, request: RequestFacts) -> Scored:
    """Score each document with its query; the head's first output is the score, as in llama-server.

    Raises:
        InvalidRequest: and its children, for the query, the instruction or all bad documents at once.
    """
    truncate = call.truncate or stages.config.models[model].truncate
    options = [
        TextOptions(
            PoolingType.RANK,
            pair=Pair(
                query,
                call.instruction,
                call.document_tokens,
                call.sequence_tokens,
                truncate,
                call.query_param,
            ),
        )
        async for query in in_turns(call.queries)
    ]
    texts = TextBatch(model, list(call.documents), query_of(call).tolist(), options, [request] * len(options))
    outputs = await _outputs(
        stages,
        texts,
        request,
        call.lane,
        call.param,
        (call.query_param, "instruction", "truncate_prompt_tokens"),
        call.unit_interval,
    )
    first = np.ascontiguousarray(outputs.values[:, 0])
    return Scored(first, outputs.score_type, outputs.tokens, len(outputs.tokens.token_ids), outputs.phases)


async def classify(stages: Stages, model: str, call: ClassifyCall, request: RequestFacts) -> Outputs:
    """Return the head's outputs for texts and pairs; raises as ``score_pairs``."""
    model_config = stages.config.models[model]
    truncate = call.truncate or model_config.truncate
    single = TextOptions(PoolingType.RANK, truncate, parse_special=model_config.parse_special)
    options: list[TextOptions] = [single]
    place: dict[str, int] = {}
    owner: list[int] = []
    async for item in in_turns(call.inputs):
        if isinstance(item, str):
            owner.append(0)
            continue
        if item[0] not in place:
            place[item[0]] = len(options)
            # A first text that is too long is one bad item among others, so no field is named here.
            options.append(TextOptions(PoolingType.RANK, pair=Pair(item[0], truncate=truncate, query_param="")))
        owner.append(place[item[0]])
    seconds = [item if isinstance(item, str) else item[1] for item in call.inputs]
    texts = TextBatch(model, list(seconds), owner, options, [request] * len(options))
    return await _outputs(stages, texts, request, call.lane, call.param, (), call.unit_interval)


async def _outputs(
    stages: Stages,
    texts: TextBatch,
    request: RequestFacts,
    lane: Lane | None,
    param: str,
    request_params: tuple[str, ...],
    unit_interval: bool,
) -> Outputs:
    started_s = time.monotonic()
    model = texts.model
    tokens = await stages.tokenize(texts, request.lane)
    raise_errors(tokens, param, request_params)
    stages.check_token_limit(tokens, param)
    tokenized_s = time.monotonic()
    lane = settle_lane(stages, tokens, request, lane)
    vectors = await stages.encode(model, PoolingType.RANK, tokens, lane)
    raise_item_errors(vectors.errors, param, len(tokens))
    encoded_s = time.monotonic()
    outputs = vectors.values.reshape(len(tokens), -1)
    score_type = stages.descriptions[model].facts.score_type
    if unit_interval:
        outputs, score_type = to_unit_interval(outputs, score_type, stages.config.models[model].score_activation)
    phases = Phases((started_s, tokenized_s), [vectors.provenance], [(encoded_s, time.monotonic())])
    return Outputs(outputs, score_type, tokens, phases)

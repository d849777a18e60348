"""Scores by vectors, for models without a head: late interaction (MaxSim) of token vectors, and cosine of texts' vectors.

Queries and documents are encoded each by itself, in groups of at most one message's tokens, and the Pooler scores each group:
no more than a few groups' vectors exist at any time, whatever the number of documents. A group holds its own queries, so that
it needs nothing of another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import numpy as np

from cluster.batching.planning import split_by_tokens
from cluster.calls import RerankCall
from cluster.errors import InvalidRequest, PoolhouseError
from cluster.item_errors import raise_item_errors
from cluster.pooler import InteractionBatch
from cluster.rerank import max_sim_to_unit_interval
from cluster.reranking.scored import Phases, Scored, query_of, settle_lane
from cluster.stages import Stages
from cluster.texts import TextBatch, TextOptions
from cluster.types import Float32, Int32, Lane, PoolingType, RequestFacts, ScoreType, TokenBatch

_GROUPS_AT_ONCE = 8
"""Groups of one request whose vectors may exist at the same time: enough to keep several encoders busy."""


async def compare(
    stages: Stages, model: str, pooling: PoolingType, call: RerankCall, request: RequestFacts, *, late: bool
) -> Scored:
    """Score each document by its vectors and its query's.

    Args:
        pooling: none for late interaction, else what makes one vector of a text.

    Raises:
        InvalidRequest: and its children, for the queries, the instruction or all bad documents at once.
    """
    if call.instruction is not None:
        raise InvalidRequest(
            f"the model {model!r} scores here by vectors, which take no instruction; leave it out", "instruction"
        )
    started_s = time.monotonic()
    first = len(call.queries)
    tokens = await stages.tokenize(_texts(stages, model, pooling, call, request), request.lane)
    _raise_errors(tokens.errors, call, first)
    stages.check_token_limit(tokens, call.param)
    tokenized_s = time.monotonic()
    lane = settle_lane(stages, tokens, request, call.lane)
    owners = query_of(call)
    phases = Phases((started_s, tokenized_s), [], [])
    scores = await _score_groups(stages, model, pooling, tokens, owners, call, lane, phases)
    if call.unit_interval:
        rows = tokens.lengths[owners] if late else np.ones(len(owners), dtype=np.int64)
        scores = max_sim_to_unit_interval(scores, rows.astype(np.int32))
    return Scored(
        scores=scores,
        score_type=ScoreType.MAXSIM if late else ScoreType.COSINE,
        tokens=tokens.slice(first, len(tokens)),
        total_tokens=len(tokens.token_ids),
        phases=phases,
    )


def _texts(stages: Stages, model: str, pooling: PoolingType, call: RerankCall, request: RequestFacts) -> TextBatch:
    """The queries, then the documents, each with the prompt that the model was trained with, where one is configured."""
    model_config = stages.config.models[model]
    truncate = call.truncate or model_config.truncate
    prompts = model_config.prompts if call.prompts else {}
    queries = TextOptions(pooling, prompt=prompts.get("query", ""))
    caps = [cap for cap in (call.document_tokens, call.sequence_tokens) if cap is not None]
    documents = TextOptions(
        pooling, truncate, prompt=prompts.get("document", ""), content_tokens=min(caps, default=None)
    )
    return TextBatch(
        model,
        [*call.queries, *call.documents],
        [0] * len(call.queries) + [1] * len(call.documents),
        [queries, documents],
        [request, request],
    )


async def _score_groups(
    stages: Stages,
    model: str,
    pooling: PoolingType,
    tokens: TokenBatch,
    owners: Int32,
    call: RerankCall,
    lane: Lane,
    phases: Phases,
) -> Float32:
    first = len(call.queries)
    gate = asyncio.Semaphore(_GROUPS_AT_ONCE)
    turn = asyncio.Lock()

    async def score(begin: int, end: int) -> Float32:
        async with gate, stages.comparing:
            async with turn:
                # One group in each turn of the event loop: all at once would hold it up.
                await asyncio.sleep(0)
            queries, query_of_document = np.unique(owners[begin:end], return_inverse=True)
            items = [*queries.tolist(), *range(first + begin, first + end)]
            vectors = await stages.encode(model, pooling, tokens.select(items), lane)
            _raise_errors({items[item]: error for item, error in vectors.errors.items()}, call, first)
            split = len(queries)
            batch = InteractionBatch(
                queries=vectors.select(range(split)),
                documents=vectors.select(range(split, len(items))),
                query_of=query_of_document.astype(np.int32),
            )
            phases.encoded.append(vectors.provenance)
            encoded_s = time.monotonic()
            scores = await stages.score(batch, lane, tokens.requests[0].trace)
            phases.pooled.append((encoded_s, time.monotonic()))
            return scores

    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(score(*group)) for group in _groups(stages, tokens, owners, first)]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return np.concatenate([task.result() for task in running])


def _groups(stages: Stages, tokens: TokenBatch, owners: Int32, first: int) -> list[tuple[int, int]]:
    """Cut the documents so that a group with its queries is one message."""
    batching = stages.config.batching
    lengths = tokens.lengths
    if first == 1:
        cap_tokens = max(1, batching.message_tokens - int(lengths[0]))
        return split_by_tokens(lengths[1:], cap_tokens, max(1, batching.message_items - 1))
    with_queries = lengths[first:] + lengths[:first][owners]
    return split_by_tokens(with_queries, batching.message_tokens, max(1, batching.message_items // 2))


def _raise_errors(errors: Mapping[int, PoolhouseError], call: RerankCall, first: int) -> None:
    """Raise one error for the queries, else one for all bad documents; items are numbered with the queries first."""
    raise_item_errors(
        {item: error for item, error in errors.items() if item < first},
        call.query_param,
        first,
        listed=len(call.queries) > 1,
    )
    raise_item_errors(
        {item - first: error for item, error in errors.items() if item >= first}, call.param, len(call.documents)
    )

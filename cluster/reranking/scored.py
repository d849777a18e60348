"""What each strategy hands back to the flow, and the checks that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.calls import RerankCall
from cluster.item_errors import raise_item_errors
from cluster.stages import Stages
from cluster.types import Float32, Int32, Lane, RequestFacts, ScoreType, TokenBatch


@dataclass(frozen=True, slots=True)
class Scored:
    """Float32 ``[n]`` scores and the documents' tokens.

    Attributes:
        total_tokens: encoded for the request, the queries' with them.
    """

    scores: Float32
    score_type: ScoreType
    tokens: TokenBatch
    total_tokens: int
    timings_s: dict[str, float]


def query_of(call: RerankCall) -> Int32:
    """Which query each document belongs to, int32 ``[n]``."""
    if len(call.queries) == 1:
        return np.zeros(len(call.documents), dtype=np.int32)
    return np.arange(len(call.documents), dtype=np.int32)


def settle_lane(stages: Stages, tokens: TokenBatch, request: RequestFacts, lane: Lane | None) -> Lane:
    """Give tokenized items their one request, in the lane that their number asks for."""
    lane = lane or stages.lane(len(tokens), len(tokens.token_ids))
    tokens.requests = [replace(request, lane=lane)]
    tokens.owner = np.zeros(len(tokens), dtype=np.int32)
    return lane


def raise_errors(tokens: TokenBatch, param: str, request_params: Sequence[str]) -> None:
    """Raise one error for all bad items; one about a field of the request itself comes first, once."""
    for error in tokens.errors.values():
        if error.param in request_params:
            raise error
    raise_item_errors(tokens.errors, param, len(tokens))

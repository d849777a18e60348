"""What each strategy hands back to the flow, and the checks that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.calls import RerankCall
from cluster.item_errors import raise_item_errors
from cluster.stages import Stages
from cluster.timings import Span, timings
from cluster.types import Float32, Int32, Lane, Provenance, RequestFacts, ScoreType, TokenBatch


@dataclass(frozen=True, slots=True)
class Phases:
    """When a request was in which stage, and what computed its items: one provenance for each of its encode calls."""

    tokenized: Span
    encoded: list[Provenance]
    pooled: list[Span]

    def timings(self, started_s: float, ended_s: float) -> dict[str, float]:
        """Return the parts of a request's time (see ``cluster.timings``)."""
        return timings(
            (started_s, ended_s), self.tokenized, [provenance.spans for provenance in self.encoded], self.pooled
        )

    @property
    def builds(self) -> tuple[str, ...]:
        """All builds that have computed any of its items."""
        return tuple(sorted({build for provenance in self.encoded for build in provenance.used_builds}))


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
    phases: Phases


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

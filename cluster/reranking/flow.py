"""Which model and strategy answer a call, and the order of its documents."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from cluster.attempts import within_limit
from cluster.calls import ClassifyAnswer, ClassifyCall, RerankAnswer, RerankCall, Strategy
from cluster.config import PoolhouseConfig
from cluster.errors import EngineError, PoolingUnavailable
from cluster.offload import its_turn
from cluster.rerank import best_first
from cluster.reranking import heads, vectors
from cluster.stages import Stages
from cluster.timings import count_queue
from cluster.types import PoolingType, RequestFacts


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes."""

    model: str
    strategy: Strategy
    pooling: PoolingType


class Reranking:
    """Carries rerank and classify calls through the stages."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.router = stages.router

    @property
    def config(self) -> PoolhouseConfig:
        """The whole configuration."""
        return self._stages.config

    def route(self, model: str | None, strategy: Strategy | None = None) -> Route:
        """Return the model, the strategy and the pooling type that answer a request.

        A request that names no model gets the default one if it has a classification head, else the first that has, else the
        default one by late interaction. A model that was trained to rank and has lost its head is never chosen to score by
        its vectors; that must be asked for.

        Raises:
            ModelNotFound: there is no such model.
            PoolingUnavailable: it cannot score in this way; the message says why.
        """
        name = self.router.resolve(self.choose_model(model, strategy))
        trained_to_rank = self._stages.descriptions[name].facts.trained_pooling is PoolingType.RANK
        if strategy is None:
            ranks = self._ranks(name) or trained_to_rank
            strategy = Strategy.CROSS_ENCODER if ranks else Strategy.LATE_INTERACTION
        pooling = {
            Strategy.CROSS_ENCODER: PoolingType.RANK,
            Strategy.LATE_INTERACTION: PoolingType.NONE,
            Strategy.SIMILARITY: self._vector_pooling(name),
        }[strategy]
        try:
            self.router.check(name, pooling)
        except PoolingUnavailable as error:
            raise PoolingUnavailable(
                f"the strategy {strategy.value!r} is not available: {error.message}", "model"
            ) from error
        return Route(name, strategy, pooling)

    def choose_model(
        self, asked: str | None, strategy: Strategy | None, among: Collection[str] | None = None
    ) -> str | None:
        """Return the model of a request that names none, where that is not the default one; else what was ``asked`` for.

        Args:
            among: the models that may be chosen; None: all.
        """
        default = self.config.default_model_name
        if asked is not None or strategy not in (None, Strategy.CROSS_ENCODER):
            return asked
        chosen = [name for name in (default, *self.config.models) if among is None or name in among]
        return next((name for name in chosen if self._ranks(name)), asked)

    def labels(self, model: str) -> int:
        """How many outputs the model's head has."""
        return max(1, len(self._stages.descriptions[model].facts.labels))

    async def rerank(self, call: RerankCall, request_id: str, trace: str | None = None) -> RerankAnswer:
        """Answer a call within its time limit.

        Raises:
            InvalidRequest: and its children, for what is wrong with the call; all bad documents at once.
            DeadlineExceeded: the limit passed.
            PoolhouseError: a stage failed.
        """
        started_s = time.monotonic()
        items, timeout_s = len(call.documents), self.config.limits.within(call.timeout_s)
        return await within_limit(
            "rerank", request_id, trace, items, timeout_s, lambda facts: self._rerank(call, facts, started_s)
        )

    async def classify(self, call: ClassifyCall, request_id: str, trace: str | None = None) -> ClassifyAnswer:
        """Return all outputs of the head for each text or pair; raises as ``rerank``."""
        started_s = time.monotonic()
        items, timeout_s = len(call.inputs), self.config.limits.within(call.timeout_s)
        return await within_limit(
            "classify", request_id, trace, items, timeout_s, lambda facts: self._classify(call, facts, started_s)
        )

    async def _rerank(self, call: RerankCall, request: RequestFacts, started_s: float) -> RerankAnswer:
        route = self.route(call.model, call.strategy)
        request = replace(request, lane=call.lane or self._stages.lane(len(call.documents), 0))
        if route.strategy is Strategy.CROSS_ENCODER:
            scored = await heads.score_pairs(self._stages, route.model, call, request)
        else:
            late = route.strategy is Strategy.LATE_INTERACTION
            scored = await vectors.compare(self._stages, route.model, route.pooling, call, request, late=late)
        _check_finite(scored.scores, route.model)
        await its_turn()
        order = best_first(scored.scores, call.top_n)
        timings_s = scored.phases.timings(started_s, time.monotonic())
        count_queue(route.model, route.pooling, timings_s)
        await its_turn()
        return RerankAnswer(
            model=route.model,
            strategy=route.strategy,
            pooling=route.pooling,
            fingerprint=scored.tokens.fingerprint,
            score_type=scored.score_type,
            scores=scored.scores,
            order=order,
            tokens=scored.tokens.lengths.tolist(),
            cut_tokens=scored.tokens.cut_tokens.tolist(),
            total_tokens=scored.total_tokens,
            builds=scored.phases.builds,
            timings_s=timings_s,
        )

    async def _classify(self, call: ClassifyCall, request: RequestFacts, started_s: float) -> ClassifyAnswer:
        model = self.route(call.model, Strategy.CROSS_ENCODER).model
        request = replace(request, lane=call.lane or self._stages.lane(len(call.inputs), 0))
        outputs = await heads.classify(self._stages, model, call, request)
        _check_finite(outputs.values, model)
        timings_s = outputs.phases.timings(started_s, time.monotonic())
        count_queue(model, PoolingType.RANK, timings_s)
        return ClassifyAnswer(
            model=model,
            fingerprint=outputs.tokens.fingerprint,
            score_type=outputs.score_type,
            labels=self._stages.descriptions[model].facts.labels,
            scores=outputs.values,
            tokens=outputs.tokens.lengths.tolist(),
            cut_tokens=outputs.tokens.cut_tokens.tolist(),
            builds=outputs.phases.builds,
            timings_s=timings_s,
        )

    def _ranks(self, model: str) -> bool:
        return PoolingType.RANK in self.router.pooling_types(model)

    def _vector_pooling(self, model: str) -> PoolingType:
        """The pooling type of a text's one vector: the model's default, or the first that makes one."""
        default = self.router.default_pooling(model)
        several = (PoolingType.NONE, PoolingType.RANK)
        if default not in several:
            return default
        return next((other for other in self.router.pooling_types(model) if other not in several), PoolingType.MEAN)


def _check_finite(scores: np.ndarray, model: str) -> None:
    if not np.isfinite(scores).all():
        raise EngineError(
            f"the model {model!r} gave a score that is not finite; its weights may overflow in this quantisation"
        )

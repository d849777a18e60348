from __future__ import annotations

from typing import Any

import pytest

from cluster.calls import Strategy
from cluster.engine.fake import fake_facts
from cluster.errors import ModelNotFound, PoolingUnavailable
from cluster.reranking import Reranking
from cluster.stages import ModelDescription, Senders, Stages
from cluster.types import ModelFacts, PoolingType
from tests.support.pipelines import fake_config

VECTORS = (PoolingType.NONE, PoolingType.MEAN, PoolingType.CLS)
NO_HEAD = {PoolingType.RANK: "it has no classification head"}
LOST_HEAD = {PoolingType.RANK: "its classification head was lost in conversion"}


def facts(**changes: Any) -> ModelFacts:
    plain = fake_facts()
    members = {name: getattr(plain, name) for name in ModelFacts.__dataclass_fields__}
    return ModelFacts(**{**members, **changes})


EMBEDDER = facts(pooling_types=VECTORS, refused=NO_HEAD)
RERANKER = facts(trained_pooling=PoolingType.RANK)
BEHEADED = facts(trained_pooling=PoolingType.RANK, pooling_types=VECTORS, refused=LOST_HEAD)
TOKENLESS = facts(pooling_types=(PoolingType.MEAN,), refused=NO_HEAD)


def reranking(**models: ModelFacts) -> Reranking:
    async def unused(*arguments: Any) -> Any:
        raise AssertionError("a route is found without the stages")

    config = fake_config(
        models={name: {"source": "fake"} for name in models},
        encoders={name: {"model": name, "engine": "fake"} for name in models},
    )
    descriptions = {name: ModelDescription(known, "mark", 512) for name, known in models.items()}
    senders = Senders(unused, unused, unused, unused, lambda name: 1, unused, unused, lambda name: 1)
    return Reranking(Stages(config, descriptions, senders))


def test_the_default_model_ranks_if_it_can() -> None:
    route = reranking(first=RERANKER, second=RERANKER).route(None)
    assert (route.model, route.strategy, route.pooling) == ("first", Strategy.CROSS_ENCODER, PoolingType.RANK)


def test_a_model_that_ranks_comes_before_a_default_that_does_not() -> None:
    route = reranking(embedder=EMBEDDER, reranker=RERANKER).route(None)
    assert (route.model, route.strategy) == ("reranker", Strategy.CROSS_ENCODER)


def test_without_a_model_that_ranks_the_default_interacts_late() -> None:
    route = reranking(embedder=EMBEDDER).route(None)
    assert (route.model, route.strategy, route.pooling) == ("embedder", Strategy.LATE_INTERACTION, PoolingType.NONE)


def test_a_model_that_is_named_is_used() -> None:
    route = reranking(embedder=EMBEDDER, reranker=RERANKER).route("embedder")
    assert (route.model, route.strategy) == ("embedder", Strategy.LATE_INTERACTION)


@pytest.mark.parametrize(
    ("strategy", "pooling"), [("late_interaction", PoolingType.NONE), ("similarity", PoolingType.MEAN)]
)
def test_a_strategy_may_be_asked_for(strategy: str, pooling: PoolingType) -> None:
    route = reranking(reranker=facts(trained_pooling=PoolingType.RANK)).route(None, Strategy(strategy))
    assert (route.strategy, route.pooling) == (Strategy(strategy), pooling)


def test_a_model_that_lost_its_head_is_refused_with_the_reason() -> None:
    with pytest.raises(PoolingUnavailable, match="lost in conversion") as error:
        reranking(beheaded=BEHEADED).route(None)
    assert error.value.param == "model"


def test_its_vectors_are_compared_only_if_that_is_asked_for() -> None:
    route = reranking(beheaded=BEHEADED).route("beheaded", Strategy.LATE_INTERACTION)
    assert route.pooling is PoolingType.NONE


def test_a_cross_encoder_that_is_asked_for_is_not_replaced() -> None:
    with pytest.raises(PoolingUnavailable, match="no classification head"):
        reranking(embedder=EMBEDDER).route(None, Strategy.CROSS_ENCODER)


def test_a_model_without_token_vectors_cannot_interact_late() -> None:
    with pytest.raises(PoolingUnavailable, match="late_interaction"):
        reranking(tokenless=TOKENLESS).route(None)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        reranking(embedder=EMBEDDER).route("nowhere")

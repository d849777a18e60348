from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from cluster.config import PoolhouseConfig, parse_config
from cluster.engine.fake import fake_facts
from cluster.errors import ConfigError, ModelNotFound, PoolingUnavailable
from cluster.routing import Router, encoder_pooling_types
from cluster.types import ModelFacts, PoolingType

WHOLE = fake_facts()
CAUSAL = replace(
    WHOLE,
    causal=True,
    trained_pooling=PoolingType.LAST,
    pooling_types=(PoolingType.NONE, PoolingType.MEAN, PoolingType.LAST),
    refused={PoolingType.CLS: "it is causal", PoolingType.RANK: "it has no head", PoolingType.WEIGHTED: "not here"},
)


def _config(encoders: dict[str, Any] | None = None, **model: Any) -> PoolhouseConfig:
    return parse_config(
        {
            "models": {"first": {"source": "a", "aliases": ["one", "org/one"], **model}, "second": {"source": "b"}},
            "encoders": encoders or {"a": {"model": "first"}, "b": {"model": "second"}},
        }
    )


def _router(
    encoders: dict[str, Any] | None = None, first: ModelFacts = WHOLE, second: ModelFacts = CAUSAL, **model: Any
) -> Router:
    return Router(_config(encoders, **model), {"first": first, "second": second})


def _only(*poolings: str, **more: Any) -> dict[str, Any]:
    return {"a": {"model": "first", "pooling": list(poolings), **more}, "b": {"model": "second"}}


class TestModels:
    @pytest.mark.parametrize(
        ("asked", "found"),
        [(None, "first"), ("first", "first"), ("one", "first"), ("org/one", "first"), ("second", "second")],
    )
    def test_name_alias_and_absence_find_a_model(self, asked: str | None, found: str) -> None:
        assert _router().resolve(asked) == found

    def test_the_configured_default_answers_requests_that_name_none(self) -> None:
        config = parse_config({**_config().model_dump(mode="json"), "default_model": "second"})
        assert Router(config, {"first": WHOLE, "second": CAUSAL}).resolve(None) == "second"

    def test_an_unknown_name_gets_the_nearest_and_all(self) -> None:
        with pytest.raises(ModelNotFound) as caught:
            _router().resolve("frist")
        assert caught.value.message == ("there is no model 'frist' (did you mean 'first'?); models here: first, second")
        assert caught.value.param == "model"
        assert caught.value.status == 404

    def test_a_name_is_shown_in_short(self) -> None:
        with pytest.raises(ModelNotFound) as caught:
            _router().resolve("m" * 100_000)
        assert len(caught.value.message) < 300


class TestRoutes:
    def test_every_encoder_answers_what_its_model_can(self) -> None:
        router = _router()
        assert router.pooling_types("first") == list(PoolingType)
        assert router.pooling_types("second") == [PoolingType.NONE, PoolingType.MEAN, PoolingType.LAST]
        assert len(router.routes) == 9

    def test_configured_pooling_types_are_the_only_ones(self) -> None:
        router = _router(_only("last", "mean"))
        assert router.pooling_types("first") == [PoolingType.MEAN, PoolingType.LAST]
        with pytest.raises(PoolingUnavailable) as caught:
            router.check("first", PoolingType.CLS)
        assert caught.value.message == (
            "the model 'first' does not answer pooling type 'cls': "
            "no encoder in the configuration answers it. It answers: mean, last"
        )
        assert caught.value.param == "pooling"

    def test_what_a_model_cannot_do_is_refused_with_its_reason(self) -> None:
        router = _router()
        with pytest.raises(PoolingUnavailable, match=r"'cls': it is causal\. It answers: none, mean, last"):
            router.check("second", PoolingType.CLS)
        with pytest.raises(PoolingUnavailable, match="it has no head"):
            router.choose("second", PoolingType.RANK)

    def test_an_impossible_pooling_type_in_the_configuration_names_its_key(self) -> None:
        encoders = {"a": {"model": "first"}, "b": {"model": "second", "pooling": ["mean", "cls"]}}
        with pytest.raises(ConfigError) as caught:
            _router(encoders)
        assert caught.value.message == (
            "encoders.b.pooling: cls is impossible: it is causal. Possible: none, mean, last"
        )

    def test_a_default_that_nobody_answers_names_its_key(self) -> None:
        with pytest.raises(ConfigError, match=r"^models\.first\.default_pooling: .*'last'") as caught:
            _router(_only("mean", "cls"), default_pooling="last")
        assert "no encoder in the configuration answers it. It answers: mean, cls" in caught.value.message

    def test_pooling_types_of_one_encoder(self) -> None:
        config = _config(_only("cls", "mean"))
        assert encoder_pooling_types(config, "a", WHOLE) == (PoolingType.CLS, PoolingType.MEAN)
        assert encoder_pooling_types(config, "b", CAUSAL) == CAUSAL.pooling_types


class TestDefaultPooling:
    def test_configured_wins_over_trained(self) -> None:
        assert _router(default_pooling="last").default_pooling("first") is PoolingType.LAST

    def test_trained_is_the_default(self) -> None:
        router = _router()
        assert router.default_pooling("first") is PoolingType.MEAN
        assert router.default_pooling("second") is PoolingType.LAST

    @pytest.mark.parametrize(
        ("answered", "default"),
        [
            (["none", "cls", "last"], PoolingType.LAST),
            (["none", "cls"], PoolingType.CLS),
            (["rank"], PoolingType.RANK),
            (["none"], PoolingType.NONE),
        ],
    )
    def test_without_the_trained_one_another_vector_is_found(self, answered: list[str], default: PoolingType) -> None:
        assert _router(_only(*answered)).default_pooling("first") is default

    def test_a_model_that_names_none_gets_the_mean(self) -> None:
        assert _router(first=replace(WHOLE, trained_pooling=None)).default_pooling("first") is PoolingType.MEAN


class TestShares:
    @pytest.mark.parametrize("weights", [(1, 1), (9, 1), (5, 3), (2.5, 2.5)])
    def test_encoders_share_a_route_by_weight(self, weights: tuple[float, float]) -> None:
        encoders = {
            "a": {"model": "first", "weight": weights[0]},
            "canary": {"model": "first", "weight": weights[1]},
            "b": {"model": "second"},
        }
        router = _router(encoders)
        turns = 40
        counts = Counter(router.choose("first", PoolingType.MEAN) for _ in range(turns))
        share = turns / sum(weights)
        assert counts == {"a": weights[0] * share, "canary": weights[1] * share}

    def test_a_light_encoders_turns_are_spread_evenly(self) -> None:
        encoders = {
            "a": {"model": "first", "weight": 3},
            "canary": {"model": "first", "weight": 1},
            "b": {"model": "second"},
        }
        router = _router(encoders)
        turns = [router.choose("first", PoolingType.CLS) for _ in range(40)]
        places = [turn for turn, name in enumerate(turns) if name == "canary"]
        assert {later - earlier for earlier, later in itertools.pairwise(places)} == {4}

    def test_each_route_keeps_its_own_count(self) -> None:
        encoders = {
            "a": {"model": "first", "pooling": ["mean", "cls"]},
            "canary": {"model": "first", "pooling": ["mean"]},
            "b": {"model": "second"},
        }
        router = _router(encoders)
        assert {router.choose("first", PoolingType.CLS) for _ in range(5)} == {"a"}
        assert Counter(router.choose("first", PoolingType.MEAN) for _ in range(10)) == {"a": 5, "canary": 5}

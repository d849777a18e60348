"""Which encoders answer (model, pooling type), and which of them takes the next request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cluster.config import PoolhouseConfig
from cluster.errors import ConfigError, ModelNotFound, PoolingUnavailable, nearest
from cluster.types import ModelFacts, PoolingType

_SHOWN_CHARACTERS = 128


@dataclass(slots=True)
class _Weighted:
    encoder: str
    weight: float
    credit: float = 0.0


class Router:
    """Routes of a configuration.

    A route's encoders share its requests by smooth weighted round-robin (the method nginx uses for upstream servers): each
    choice adds every weight to its encoder's credit, takes the encoder with most credit and charges it the sum of weights, so
    that the shares hold exactly over any run of requests and a light encoder's turns are spread evenly.
    """

    def __init__(self, config: PoolhouseConfig, facts: Mapping[str, ModelFacts]) -> None:
        """Build all routes.

        Raises:
            ConfigError: an encoder is to answer a pooling type that its model cannot, or no encoder a model's default.
        """
        self._config = config
        self._facts = dict(facts)
        self._names = {alias: name for name, model in config.models.items() for alias in model.aliases}
        self._names.update({name: name for name in config.models})
        self._routes: dict[tuple[str, PoolingType], list[_Weighted]] = {}
        for name, encoder in config.encoders.items():
            for pooling in encoder_pooling_types(config, name, facts[encoder.model]):
                self._routes.setdefault((encoder.model, pooling), []).append(_Weighted(name, encoder.weight))
        for name, model in config.models.items():
            if model.default_pooling is not None and (name, model.default_pooling) not in self._routes:
                raise ConfigError(f"models.{name}.default_pooling: {self._refusal(name, model.default_pooling)}")

    @property
    def routes(self) -> list[tuple[str, PoolingType]]:
        """Every (model, pooling type) that is answered."""
        return list(self._routes)

    def resolve(self, name: str | None, among: Collection[str] | None = None) -> str:
        """Return the configured name of the model that a request asks for by name, alias or not at all.

        Args:
            among: the models that the error may name; None: all.

        Raises:
            ModelNotFound: there is no such model.
        """
        if name is None:
            return self._config.default_model_name
        found = self._names.get(name)
        if found is None:
            # A path may name anything; the search for the nearest takes time with the square of the length.
            shown = name[:_SHOWN_CHARACTERS]
            told = [model for model in self._config.models if among is None or model in among]
            names = [alias for alias, model in self._names.items() if model in told]
            raise ModelNotFound(
                f"there is no model {shown!r}{nearest(shown, names)}; models here: {', '.join(told) or 'none'}",
                "model",
            )
        return found

    def pooling_types(self, model: str) -> list[PoolingType]:
        """The pooling types of ``model`` that some encoder answers, in the enum's order."""
        return [pooling for pooling in PoolingType if (model, pooling) in self._routes]

    def default_pooling(self, model: str) -> PoolingType:
        """The pooling type of a request that names none: configured, else trained, else the first vector that is answered."""
        answered = self.pooling_types(model)
        configured = self._config.models[model].default_pooling
        if configured is not None:
            return configured
        trained = self._facts[model].trained_pooling
        if trained is not None and trained in answered:
            return trained
        for pooling in (PoolingType.MEAN, PoolingType.LAST, PoolingType.CLS, PoolingType.RANK):
            if pooling in answered:
                return pooling
        return answered[0]

    def check(self, model: str, pooling: PoolingType) -> None:
        """Check that some encoder answers this route.

        Raises:
            PoolingUnavailable: none does; the message says why and what is answered.
        """
        if (model, pooling) not in self._routes:
            raise PoolingUnavailable(self._refusal(model, pooling), "pooling")

    def shares(self, model: str, pooling: PoolingType) -> dict[str, float]:
        """Return the encoders of this route and the part of its work that each takes.

        Raises:
            PoolingUnavailable: as ``check``.
        """
        self.check(model, pooling)
        encoders = self._routes[model, pooling]
        total = sum(encoder.weight for encoder in encoders)
        return {encoder.encoder: encoder.weight / total for encoder in encoders}

    def choose(self, model: str, pooling: PoolingType) -> str:
        """Return the encoder that takes the next message of this route.

        Raises:
            PoolingUnavailable: as ``check``.
        """
        self.check(model, pooling)
        encoders = self._routes[model, pooling]
        if len(encoders) == 1:
            return encoders[0].encoder
        for candidate in encoders:
            candidate.credit += candidate.weight
        chosen = max(encoders, key=lambda candidate: candidate.credit)
        chosen.credit -= sum(candidate.weight for candidate in encoders)
        return chosen.encoder

    def _refusal(self, model: str, pooling: PoolingType) -> str:
        why = self._facts[model].refused.get(pooling, "no encoder in the configuration answers it")
        answered = ", ".join(self.pooling_types(model))
        return f"the model {model!r} does not answer pooling type {pooling.value!r}: {why}. It answers: {answered}"


def encoder_pooling_types(config: PoolhouseConfig, encoder: str, facts: ModelFacts) -> tuple[PoolingType, ...]:
    """Return the pooling types that an encoder answers: those configured, or all that its model can.

    Raises:
        ConfigError: one that is configured is impossible for the model.
    """
    configured = config.encoders[encoder].pooling
    if configured is None:
        return facts.pooling_types
    for pooling in configured:
        if pooling not in facts.pooling_types:
            why = facts.refused.get(pooling, "the model cannot")
            possible = ", ".join(facts.pooling_types)
            raise ConfigError(f"encoders.{encoder}.pooling: {pooling.value} is impossible: {why}. Possible: {possible}")
    return configured

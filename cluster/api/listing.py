"""What there is: ``GET /v1/models``, ``GET /v1/models/{id}`` and ``GET /info``."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import orjson

from cluster.api.keys import ApiKey, may_use
from cluster.pipeline import Pipeline


def format_models(pipeline: Pipeline, started_s: int, key: ApiKey | None) -> bytes:
    """Print OpenAI's list of the models that a key may use, each with what it answers."""
    data = [_model(pipeline, name, started_s) for name in pipeline.config.models if may_use(key, name)]
    return orjson.dumps({"object": "list", "data": data})


def format_model(pipeline: Pipeline, name: str, started_s: int) -> bytes:
    """Print one model of the list; ``name`` is its configured name."""
    return orjson.dumps(_model(pipeline, name, started_s))


def format_info(pipeline: Pipeline, started_s: int, paths: list[str], key: ApiKey | None) -> bytes:
    """Print the server's version, wiring, limits and paths, and the models that a key may use (``GET /info``)."""
    config = pipeline.config
    return orjson.dumps(
        {
            "name": "poolhouse",
            "version": version("poolhouse"),
            "wiring": config.wiring,
            "default_model": config.default_model_name if may_use(key, config.default_model_name) else None,
            "limits": config.limits.model_dump(),
            "paths": paths,
            "models": [_model(pipeline, name, started_s) for name in config.models if may_use(key, name)],
            "encoders": {
                name: {"model": encoder.model, "weight": encoder.weight}
                for name, encoder in config.encoders.items()
                if may_use(key, encoder.model)
            },
        }
    )


def _model(pipeline: Pipeline, name: str, started_s: int) -> dict[str, Any]:
    description = pipeline.descriptions[name]
    return {
        "id": name,
        "object": "model",
        "created": started_s,
        "owned_by": "poolhouse",
        "aliases": pipeline.config.models[name].aliases,
        "pooling_types": pipeline.router.pooling_types(name),
        "default_pooling": pipeline.router.default_pooling(name),
        "trained_pooling": description.facts.trained_pooling,
        "causal": description.facts.causal,
        "refused_pooling_types": {str(pooling): why for pooling, why in description.facts.refused.items()},
        "labels": description.facts.labels,
        "score_type": description.facts.score_type if description.facts.labels else None,
        "dimensions": description.facts.dimensions,
        "context_length": description.max_tokens,
        "max_model_len": description.max_tokens,
        "architecture": description.facts.architecture,
        "prompts": sorted(pipeline.config.models[name].prompts),
        "fingerprint": description.fingerprint,
    }

"""The application that Serve gets."""

from __future__ import annotations

from typing import Any

import pytest

from deployments import app
from deployments.app import build

ARGS: dict[str, Any] = {
    "models": {"m": {"source": "fake"}},
    "encoders": {"e": {"model": "m", "engine": "fake"}},
}


def _deployments(application: Any) -> dict[str, Any]:
    """Every deployment of a bound application, by name."""
    bound = application._bound_deployment
    found = {bound.name: bound._deployment_config}
    for argument in bound.init_args:
        for each in argument.values() if isinstance(argument, dict) else [argument]:
            if hasattr(each, "_bound_deployment"):
                found |= _deployments(each)
    return found


@pytest.fixture(autouse=True)
def _fast_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "missing_fast_mode", list)


def test_a_fused_replica_is_watched_as_closely_as_an_encoder() -> None:
    fused = _deployments(build({"wiring": "fused", **ARGS}))
    split = _deployments(build({"wiring": "split", **ARGS}))
    assert fused.keys() == {"Ingress"}
    assert split.keys() == {"Ingress", "Tokenizer", "Pooler", "Encoder-e"}
    watched = {(each.health_check_period_s, each.health_check_timeout_s) for each in (*fused.values(), *split.values())}
    assert watched == {(2.0, 10.0)}

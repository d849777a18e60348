from __future__ import annotations

import pytest

from cluster import fused
from cluster.assembly import load_encoder
from cluster.batching.encoder import Encoder
from cluster.config import PoolhouseConfig
from cluster.errors import EngineError, ModelLoadError
from tests.support.pipelines import fake_config


def test_stages_of_a_closed_process_do_not_answer() -> None:
    with fused.fused_stages(fake_config()) as stages:
        assert set(stages.descriptions) == {"fake", "short"}
        assert set(stages.encoders) == {"wide", "narrow"}
    with pytest.raises(EngineError):
        stages.encoders["wide"].check_health()


def test_an_encoder_is_closed_where_a_later_one_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Encoder] = []

    def fail_second(config: PoolhouseConfig, name: str) -> Encoder:
        if loaded:
            raise ModelLoadError("damaged")
        loaded.append(load_encoder(config, name))
        return loaded[0]

    monkeypatch.setattr(fused, "load_encoder", fail_second)
    with pytest.raises(ModelLoadError, match="damaged"):
        fused.FusedStages.load(fake_config())
    with pytest.raises(EngineError):
        loaded[0].check_health()

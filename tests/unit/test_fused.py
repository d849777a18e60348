from __future__ import annotations

import asyncio

import pytest

from cluster import fused
from cluster.assembly import load_encoder
from cluster.batching import encoder as encoder_module
from cluster.batching.encoder import Encoder
from cluster.config import PoolhouseConfig
from cluster.errors import EngineError, ModelLoadError
from tests.support.pipelines import fake_config, http_client, local_pipeline

OUT_OF_MEMORY_ID, HANG_ID = 13, 14


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


def _until_it_runs(encoder: Encoder) -> None:
    while not encoder.load.running:
        pass


FAULTY = {
    "encoders": {
        "wide": {
            "model": "fake",
            "engine": "fake",
            "slots": 1,
            "fake_faults": {OUT_OF_MEMORY_ID: "out_of_memory", HANG_ID: "hang"},
        },
        "narrow": {"model": "short", "engine": "fake"},
    }
}


async def test_an_encoder_that_has_lost_its_thread_fails_who_asks_at_once_and_the_process_is_to_be_replaced() -> None:
    with local_pipeline(fake_config(**FAULTY)) as local:
        async with http_client(local) as client:
            assert (await client.get("/health")).status_code == 200
            # The one that ends the thread, and one that comes later.
            for token_id in (OUT_OF_MEMORY_ID, OUT_OF_MEMORY_ID + 1):
                answer = await asyncio.wait_for(client.post("/v1/embeddings", json={"input": [token_id]}), 20)
                assert answer.status_code == 503, answer.text
                assert answer.json()["error"]["code"] == "replica_lost"
                assert "retry-after" in answer.headers
            health = await client.get("/health")
            assert health.status_code == 500
            assert "wide" in health.text
            assert "narrow" not in health.text
            other = await client.post("/v1/embeddings", json={"input": [5], "model": "short"})
            assert other.status_code == 200


async def test_a_stuck_encoder_lets_go_of_its_work_when_its_health_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with local_pipeline(fake_config(**FAULTY)) as local:
        async with http_client(local) as client:
            held = asyncio.create_task(client.post("/v1/embeddings", json={"input": [HANG_ID]}))
            await asyncio.wait_for(asyncio.to_thread(_until_it_runs, local.encoders["wide"]), 20)
            queued = asyncio.create_task(client.post("/v1/embeddings", json={"input": [5]}))
            assert (await client.get("/health")).status_code == 200
            monkeypatch.setattr(encoder_module, "_STUCK_S", -60.0)
            monkeypatch.setattr(encoder_module, "_CLOSE_WITHIN_S", 0.0)
            assert (await client.get("/health")).status_code == 500
            answers = await asyncio.wait_for(asyncio.gather(held, queued), 20)
            assert [answer.status_code for answer in answers] == [503, 503]


def test_the_health_of_the_process_names_every_encoder_that_cannot_encode() -> None:
    with fused.fused_stages(fake_config()) as stages:
        stages.check_health()
        stages.encoders["wide"].close()
        with pytest.raises(EngineError, match="wide: the encoder was closed") as first:
            stages.check_health()
        assert "narrow" not in first.value.message
        stages.encoders["narrow"].close()
        with pytest.raises(EngineError, match="narrow"):
            stages.check_health()

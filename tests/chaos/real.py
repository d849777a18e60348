"""The default model, two encoder replicas, and the encoder that is killed under half the load that they carry."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.chaos.cluster import running
from tests.chaos.experiments import Losses, kill_replicas, text_of
from tests.chaos.load import Client, Load

_ARGS: dict[str, Any] = {
    "wiring": "split",
    "models": {"m": {"source": "package:all-minilm-l6-v2"}},
    # One thread each: two replicas share two cores.
    "encoders": {"e": {"model": "m", "micro_batch_tokens": 256, "threads": 1, "slots": 1}},
}
_REPLICAS = {"Tokenizer": 2, "Pooler": 2, "Encoder-e": 2}
_TEXTS = 40

# llama.cpp's sums depend on the batch's shape: the worst difference of a normalised vector seen between batches is 9e-5.
_TOLERANCE = 5e-4


async def kill_real_encoders(seconds: float) -> Losses:
    """Measure what the two carry, then kill one after the other at half of it; every answer is checked."""
    with running(_ARGS, _REPLICAS) as cluster:
        client = Client(cluster.port)
        expected = {}
        for number in range(_TEXTS):
            body = {"input": text_of(number)}
            status, content = await client.post(body)
            assert status == 200, content
            expected[body["input"]] = _vector(content)
        client.close()
        probe = Load(cluster.port, 400.0, _body)
        outcome = await probe.run(5.0)
        capacity_per_s = outcome.statuses[200] / max(outcome.finished_s[200])

        def is_right(body: dict[str, Any], answer: dict[str, Any]) -> bool:
            return bool(np.abs(np.asarray(answer["data"][0]["embedding"]) - expected[body["input"]]).max() < _TOLERANCE)

        print(f"  two replicas carry {capacity_per_s:.0f} requests/s; load: half of it", flush=True)
        return await kill_replicas(cluster, "Encoder-e", seconds, capacity_per_s / 2, _body, is_right)


def _body(number: int) -> dict[str, Any]:
    return {"input": text_of(number % _TEXTS)}


def _vector(content: bytes) -> Any:
    return np.asarray(json.loads(content)["data"][0]["embedding"])

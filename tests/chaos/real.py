"""The default model, two encoder replicas, and the encoder that is killed under half the load that they carry."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.chaos.cluster import running
from tests.chaos.experiments import Losses, encoders_of, kill_replicas, text_of, two_of_each
from tests.chaos.load import Client, Load

_ARGS: dict[str, Any] = {
    "models": {"m": {"source": "package:all-minilm-l6-v2"}},
    # One thread each: two replicas share two cores.
    "encoders": {"e": {"model": "m", "micro_batch_tokens": 256, "threads": 1, "slots": 1}},
}
_TEXTS = 40

# llama.cpp's sums depend on the batch's shape: the worst difference of a normalised vector seen between batches is 9e-5.
_TOLERANCE = 5e-4


async def kill_real_encoders(wiring: str, seconds: float) -> tuple[float, Losses]:
    """Measure how many requests a second two replicas carry, then kill one after the other at half of it.

    Every answer is checked.
    """
    with running({"wiring": wiring, **_ARGS}, two_of_each(wiring)) as cluster:
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

        encoders = encoders_of(wiring)
        return capacity_per_s, await kill_replicas(cluster, encoders, seconds, capacity_per_s / 2, _body, is_right)


def _body(number: int) -> dict[str, Any]:
    return {"input": text_of(number % _TEXTS)}


def _vector(content: bytes) -> Any:
    return np.asarray(json.loads(content)["data"][0]["embedding"])

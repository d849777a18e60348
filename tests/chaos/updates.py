"""A rolling update under load, at the pace of encoders that take long to load."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import numpy as np

from cluster.engine.fake import FakeVocabulary
from cluster.types import PoolingType
from tests.chaos.cluster import Cluster
from tests.chaos.experiments import encoders_of, fake_args, text_of, under_load
from tests.chaos.front import commands
from tests.chaos.load import Outcome
from tests.support.pipelines import expected_rows

_POLL_S = 0.1


# Read as one text or the other: the vectors tell which version has made them.
_PROMPTS = ("first", "second")


def version_args(version: int, wiring: str = "split") -> dict[str, Any]:
    """The fake engine behind a model that has another prompt in each version, and messages that hold four texts."""
    args = fake_args(wiring, fake_seconds_per_token=1 / 5_000)
    model = {"source": "fake", "prompts": {"query": _PROMPTS[version] + " "}}
    return {**args, "models": {"m": model}, "batching": {"message_tokens": 64}}


def queries_of(number: int) -> dict[str, Any]:
    """A request that is spread over several messages."""
    return {"input": [text_of(10 * number + part) for part in range(10)], "input_type": "query"}


def are_of_one_version(body: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether all vectors of the answer are those of one version."""
    rows = [item["embedding"] for item in answer["data"]]
    return any(
        all(
            np.allclose(row, expected_rows(f"{prompt} {text}", PoolingType.MEAN)[0], atol=1e-5)
            for text, row in zip(body["input"], rows, strict=True)
        )
        for prompt in _PROMPTS
    )


async def update(cluster: Cluster, args: dict[str, Any], replicas: dict[str, int], rate_per_s: float) -> Outcome:
    """Replace everything while requests come in."""
    return await under_load(
        cluster, rate_per_s, lambda: cluster.deploy(args, replicas), 5.0, queries_of, are_of_one_version
    )


async def update_slowly(
    cluster: Cluster, args: dict[str, Any], replicas: dict[str, int], load_s: float, rate_per_s: float
) -> Outcome:
    """Replace everything while requests come in; each new encoder's process is stopped for so long before it starts."""
    deployment = encoders_of(args["wiring"])
    old = set(_replicas(deployment))
    over = threading.Event()

    def hold() -> None:
        held: dict[int, float] = {}
        while not over.wait(_POLL_S) or held:
            for pid in set(_replicas(deployment)) - old - held.keys():
                os.kill(pid, signal.SIGSTOP)
                held[pid] = time.monotonic()
            for pid, since_s in list(held.items()):
                if over.is_set() or time.monotonic() - since_s > load_s:
                    os.kill(pid, signal.SIGCONT)
                    old.add(pid)
                    del held[pid]

    def deploy() -> None:
        holder = threading.Thread(target=hold)
        holder.start()
        try:
            cluster.deploy(args, replicas)
        finally:
            over.set()
            holder.join()

    return await under_load(cluster, rate_per_s, deploy, 5.0, queries_of, are_of_one_version)


async def update_badly(
    cluster: Cluster, args: dict[str, Any], replicas: dict[str, int], seconds: float, rate_per_s: float
) -> Outcome:
    """Deploy a version whose encoders die as they start, while requests come in."""
    deadly = {"e": {**args["encoders"]["e"], "fake_poison_id": FakeVocabulary.bos}}

    def deploy() -> None:
        cluster.submit({**args, "encoders": deadly}, replicas)
        time.sleep(seconds)

    return await under_load(cluster, rate_per_s, deploy, 0.0, queries_of, are_of_one_version)


def _replicas(deployment: str) -> list[int]:
    title = b"ray::ServeReplica:poolhouse:" + deployment.encode()
    return [pid for pid, words in commands().items() if words[0].startswith(title)]

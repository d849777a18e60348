"""Requests whose messages between the stages are larger than gRPC lets through."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from cluster.types import PoolingType
from tests.chaos.cluster import Cluster
from tests.chaos.experiments import WORDS, fake_args
from tests.chaos.load import Load, Outcome
from tests.support.pipelines import expected_rows

GRPC_LIMIT = 256 * 2**10


def oversized_args() -> dict[str, Any]:
    """The split wiring with messages of as many tokens as a configuration without GPUs has."""
    return fake_args()


async def large_requests(cluster: Cluster, seconds: float, rate_per_s: float) -> Outcome:
    """Send requests that no single message could carry: to the Tokenizer, from the encoder, and to the Pooler."""
    return await Load(cluster.port, rate_per_s, large_body, is_right).run(seconds)


def large_body(number: int) -> dict[str, Any]:
    """In turns: token matrices of 0.5 MiB, and 2,000 texts of 400 kB together."""
    chance = random.Random(number)
    if number % 2:
        return {"input": [" ".join(chance.choices(WORDS, k=25)) for _ in range(2_000)], "lane": "interactive"}
    return {"input": [" ".join(chance.choices(WORDS, k=400)) for _ in range(20)], "pooling": "none"}


def is_right(body: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether every row is the fake engine's."""
    pooling = PoolingType(body.get("pooling", "mean"))
    texts, items = body["input"], answer["data"]
    # Each text of many would take longer to check than to serve.
    places = range(0, len(texts), max(1, len(texts) // 20))
    return len(items) == len(texts) and all(
        np.allclose(items[place]["embedding"], np.squeeze(expected_rows(texts[place], pooling)), atol=1e-5)
        for place in places
    )

"""Requests of every kind at once: all pooling types, ids, texts and both mixed, long and short, on two dialects' paths."""

from __future__ import annotations

import random
from typing import Any

from cluster.calls import Input
from cluster.types import PoolingType
from tests.support.pipelines import VOCABULARY_SIZE

_WORDS = [f"word{number}" for number in range(300)]


def mixed_requests(count: int, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """Return (path, body) of ``count`` good requests to the fake model."""
    chance = random.Random(seed)
    return [_request(chance, number) for number in range(count)]


def _item(chance: random.Random) -> Input:
    length = chance.choice([1, 3, 20, 100, 400])
    kind = chance.randrange(3)
    if kind == 0:
        return " ".join(chance.choices(_WORDS, k=length))
    if kind == 1:
        return [chance.randrange(VOCABULARY_SIZE) for _ in range(length)]
    mixed: list[str | int] = [chance.randrange(VOCABULARY_SIZE), " ".join(chance.choices(_WORDS, k=length))]
    return mixed


def _request(chance: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    pooling = list(PoolingType)[number % len(PoolingType)]
    items = [_item(chance) for _ in range(chance.choice([1, 1, 1, 2, 12]))]
    body: dict[str, Any] = {"input": items, "pooling": pooling.value}
    if chance.random() < 0.3:
        body["encoding_format"] = "base64"
    if chance.random() < 0.3:
        body["lane"] = chance.choice(["interactive", "bulk"])
    if chance.random() < 0.3 and pooling is not PoolingType.RANK:
        body["dimensions"] = chance.choice([4, 8])
    return chance.choice(["/v1/embeddings", "/v1/embeddings", "/embedding"]), body

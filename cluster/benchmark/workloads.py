"""What is sent: workloads, and an endless row of unique request bodies for each.

Texts are drawn from a word list with a seed, so that two servers are sent the same texts, and no text ever repeats: caches
and de-duplication cannot help.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cluster.benchmark.words import WORDS

QUERY_WORDS = 12


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of request.

    Attributes:
        texts: of one request.
        min_words: of one text; lengths are uniform between the two.
        connections: that send it where the caller does not say.
        path: on the server.
        accept: the answer's media type that is asked for; empty for the server's own choice.
        fields: of the body beside model and texts.
        has_query: one query and ``texts`` documents, in place of ``texts`` inputs.
    """

    name: str
    description: str
    texts: int
    min_words: int
    max_words: int
    connections: int
    path: str = "/v1/embeddings"
    accept: str = ""
    fields: tuple[tuple[str, Any], ...] = ()
    has_query: bool = False


WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        # 15 words and the model's two special tokens.
        Workload("short", "one text of about 17 tokens", 1, 15, 15, connections=16),
        Workload("mixed", "one text of 20 to 200 words", 1, 20, 200, connections=16),
        Workload("batch", "32 texts of 20 to 100 words", 32, 20, 100, connections=4),
        Workload(
            "none",
            "32 texts of 20 to 100 words, every token's vector as binary",
            32,
            20,
            100,
            connections=4,
            accept="application/octet-stream",
            fields=(("pooling", "none"),),
        ),
        Workload(
            "rerank",
            "one query, 100 documents of about 100 tokens",
            100,
            95,
            105,
            connections=1,
            path="/v1/rerank",
            has_query=True,
        ),
    )
}


def texts_of(workload: Workload, seed: int) -> Iterator[str]:
    """Yield texts without end; equal seeds give equal texts."""
    # Speed, not secrecy: the texts only have to differ.
    chance = random.Random(seed)
    while True:
        yield " ".join(chance.choices(WORDS, k=chance.randint(workload.min_words, workload.max_words)))


def bodies_of(workload: Workload, model: str, seed: int, fields: Mapping[str, Any] | None = None) -> Iterator[bytes]:
    """Yield JSON request bodies without end; ``fields`` come on top of the workload's own."""
    texts = texts_of(workload, seed)
    queries = random.Random(seed + 1)
    extra = {"model": model, **dict(workload.fields), **(fields or {})}
    while True:
        items = [next(texts) for _ in range(workload.texts)]
        if workload.has_query:
            yield orjson.dumps({"query": " ".join(queries.choices(WORDS, k=QUERY_WORDS)), "documents": items, **extra})
        else:
            yield orjson.dumps({"input": items if workload.texts > 1 else items[0], **extra})

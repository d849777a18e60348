"""The kinds of requests that no server can answer, each with the status that docs/ promise for it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import orjson

from tests.mix.reference import Reference
from tests.mix.requests import Kind, Manner, Request, Texts, http, post
from tests.support.bad_bodies import BAD_FIELDS, NO_OBJECT, NOT_JSON

MAX_BODY_BYTES = 2**20
MAX_ITEMS = 500
MAX_TOKENS = 4_000
"""The limits that the server is to have, low enough for requests above them to be cheap."""

_BAD = frozenset({400})
_TOO_LARGE = frozenset({413})
_SMALL_BYTES = 20_000

# Their meaning follows from the model's width.
_OF_THE_FAKE_MODEL = {"too many dimensions"}

# Fields of other services that change vectors, and that nothing here implements.
_UNSUPPORTED: list[dict[str, Any]] = [
    {"output_dimension": 8},
    {"embedding_type": "binary"},
    {"late_chunking": True},
    {"return_multivector": True},
    {"normalized": False},
    {"task": "retrieval.query"},
]

_HTTP_FAULTS = [
    b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"\x00\xff\r\n\r\n",
]

_OTHERS: list[tuple[bytes, int]] = [
    (post("/v1/embeddings", {"input": "a", "model": "nowhere"}), 404),
    (post("/v1/nowhere", {"input": "a"}), 404),
    (http("/v1/embeddings", None, method="GET"), 405),
    (http("/v1/embeddings", b'{"input":"a"}', content_type="text/plain"), 415),
    (post("/v1/rerank", {"query": "a"}), 400),
    (post("/v1/rerank", {"query": "a", "documents": []}), 400),
    (post("/v2/rerank", {"documents": ["a"]}), 400),
    (post("/rerank", {"query": 3, "texts": ["a"]}), 422),
    (post("/rerank", {"query": "a", "texts": []}), 400),
    (post("/score", {"text_1": ["a", "b"], "text_2": ["a"]}), 400),
    (post("/classify", {"pairs": [["a"]]}), 400),
    (post("/predict", {"inputs": ["a", "b", "c"]}), 422),
    (post("/similarity", {"inputs": "a"}), 422),
    (post("/tokenize", {"content": 3}), 400),
    (post("/detokenize", {"tokens": "a"}), 400),
]


def refused_kinds(reference: Reference, texts: Texts) -> Iterator[Kind]:
    """Yield every kind."""
    fields = [
        orjson.dumps(body)
        for name, body, _ in BAD_FIELDS
        if len(str(body)) < _SMALL_BYTES and (reference.exact or name not in _OF_THE_FAKE_MODEL)
    ]
    bodies = [*NOT_JSON.values(), *NO_OBJECT.values()]
    long_text = " ".join(texts.long)

    def body_of(choices: list[bytes]) -> Any:
        return lambda chance: Request(http("/v1/embeddings", chance.choice(choices)), _BAD)

    def other(chance: random.Random) -> Request:
        raw, status = chance.choice(_OTHERS)
        return Request(raw, frozenset({status}))

    def unsupported(chance: random.Random) -> Request:
        return Request(post("/v1/embeddings", {"input": "a", **chance.choice(_UNSUPPORTED)}), _BAD)

    def oversized(chance: random.Random) -> Request:
        return chance.choice(
            [
                Request(post("/v1/embeddings", {"input": ["a"] * (MAX_ITEMS + 1)}), _TOO_LARGE),
                Request(post("/v1/rerank", {"query": "a", "documents": ["a"] * (MAX_ITEMS + 1)}), _TOO_LARGE),
                Request(post("/v1/embeddings", {"input": texts.long * 5}), _TOO_LARGE),
                Request(post("/v1/embeddings", {"input": long_text}), _BAD),
                # The body that it declares never comes: the answer is there before.
                Request(
                    http("/v1/embeddings", b'{"input":"a', length=MAX_BODY_BYTES + 1),
                    _TOO_LARGE,
                    manner=Manner.STOPS_HALFWAY,
                ),
                Request(_chunked(b'{"input":"' + b"a" * MAX_BODY_BYTES + b'"}'), _TOO_LARGE),
            ]
        )

    yield Kind("malformed: fields", 3, body_of(fields))
    yield Kind("malformed: no JSON", 1.5, body_of(bodies))
    yield Kind("malformed: HTTP", 0.5, lambda chance: Request(chance.choice(_HTTP_FAULTS), frozenset({0, 400})))
    yield Kind("malformed: other dialects, paths, types", 2, other)
    yield Kind("fields that nothing implements", 0.5, unsupported)
    yield Kind("oversized", 0.3, oversized)


def _chunked(body: bytes) -> bytes:
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    parts = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

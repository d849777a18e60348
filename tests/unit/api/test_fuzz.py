"""Bodies that a seeded generator makes up: whatever they hold, the answer is good or a clear 4xx, never a 5xx."""

from __future__ import annotations

import random
from typing import Any

import httpx
import orjson
import pytest

from tests.support.pipelines import fake_config, http_client, local_pipeline

PATHS = ("/v1/embeddings", "/embedding", "/tokenize", "/detokenize")
SEEDS = range(8)
BODIES_OF_A_SEED = 300

_FIELDS = (
    *("input", "content", "tokens", "model", "pooling", "dimensions", "encoding_format", "output_dtype", "truncate"),
    *("embd_normalize", "input_type", "prompt_name", "parse_special", "add_special", "with_pieces", "lane"),
    *("strict", "timeout_s", "user"),
)
_WORDS = (
    *(
        "none",
        "mean",
        "cls",
        "last",
        "rank",
        "weighted",
        "float",
        "base64",
        "raw",
        "int8",
        "uint8",
        "binary",
        "ubinary",
    ),
    *("end", "start", "query", "document", "passage", "interactive", "bulk", "fake", "short", "a"),
)
_NUMBERS = (0, 1, 2, 5, 8, 16, 17, 101, 49_999, 50_000, -1, 2**31 - 1, 2**31, 2**63, 0.5, -0.5, 1e300, 5e-324, 1e-9)
_TEXTS = (
    "",
    " ",
    "\0",
    "a b c",
    "\ufeff",
    "\U0010ffff",
    "%s{}",
    "\r\nx: y",
    "x" * 300,
    "word " * 30,
    "ﷺ" * 20,
    "👩‍👩‍👧",
)
_PARTS = ("prompt_string", "text", "content", "type", "input")


def _value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(8 if depth < 3 else 5)
    if kind == 0:
        return chance.choice(_WORDS)
    if kind == 1:
        return chance.choice(_TEXTS)
    if kind == 2:
        return chance.choice(_NUMBERS)
    if kind == 3:
        return chance.choice([None, True, False])
    if kind == 4:
        return chance.randrange(60_000)
    if kind == 7:
        return {chance.choice(_PARTS): _value(chance, depth + 1) for _ in range(chance.randrange(3))}
    size = chance.choice([0, 1, 2, 3, 20])
    if chance.random() < 0.5:
        return [chance.choice(_NUMBERS[:10]) for _ in range(size)]
    return [_value(chance, depth + 1) for _ in range(size)]


def _body(chance: random.Random, path: str) -> bytes:
    body = {name: _value(chance) for name in chance.sample(_FIELDS, chance.randrange(5))}
    # Half of them would be answered but for their other fields, so that every stage is reached.
    if chance.random() < 0.5:
        body |= {"input": "a b", "content": "a b", "tokens": [5, 6]}
    if chance.random() < 0.1:
        body[chance.choice(_TEXTS)] = _value(chance)
    raw = orjson.dumps(body)
    if chance.random() < 0.15:
        place = chance.randrange(len(raw))
        raw = raw[:place] + bytes([chance.randrange(256)]) * chance.randrange(3) + raw[place + 1 :]
    return raw


def _fault(response: httpx.Response, raw: bytes) -> str | None:
    if response.status_code == 200:
        if response.headers["content-type"] == "application/octet-stream":
            return None if response.content.startswith(b"\x93NUMPY") else "200 without an array"
        orjson.loads(response.content)
        return None
    if not 400 <= response.status_code < 500:
        # A request may ask for less time than any answer takes, and is told that it was not enough.
        asked_for_less = response.status_code == 504 and b"timeout_s" in raw
        return None if asked_for_less else f"{response.status_code} {response.text[:200]}"
    error = orjson.loads(response.content)["error"]
    if not {"message", "type", "param", "code"} <= set(error) or not 10 < len(error["message"]) < 4_000:
        return f"{response.status_code} with an unclear error {error}"
    return None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("path", PATHS)
async def test_no_body_brings_the_server_to_a_5xx(path: str, seed: int) -> None:
    chance = random.Random(f"{path} {seed}")
    faults: list[str] = []
    answered = 0
    with local_pipeline(fake_config()) as local:
        async with http_client(local) as client:
            good = {"input": "a b", "content": "a b", "tokens": [5, 6]}
            before = await client.post(path, json=good)
            for _ in range(BODIES_OF_A_SEED):
                raw = _body(chance, path)
                accept = chance.choice(["*/*", "*/*", "application/octet-stream"])
                headers = {"content-type": "application/json", "accept": accept}
                response = await client.post(path, content=raw, headers=headers)
                fault = _fault(response, raw)
                if fault is not None:
                    faults.append(f"{raw!r:.300}: {fault}")
                answered += response.status_code == 200
            after = await client.post(path, json=good)
    assert not faults
    assert answered > BODIES_OF_A_SEED / 10
    assert before.status_code == 200
    assert after.content == before.content

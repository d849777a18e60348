"""Two hundred mixed requests at once: each answer is that of the same request alone."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.support.mixed_requests import mixed_requests
from tests.support.pipelines import VOCABULARY_SIZE, fake_config, http_client, local_pipeline

REQUESTS = 200


async def _ask(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> bytes:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text[:300]
    return response.content


@pytest.mark.parametrize("message_tokens", [8192, 300])
async def test_every_answer_belongs_to_its_text(message_tokens: int) -> None:
    requests = mixed_requests(REQUESTS, seed=7)
    config = fake_config(batching={"message_tokens": message_tokens, "message_items": 16, "outstanding": 1})
    with local_pipeline(config) as local:
        async with http_client(local) as client:
            alone = [await _ask(client, path, body) for path, body in requests]
            tokens = local.encoders["wide"].encoded_tokens
            together = await asyncio.gather(*(_ask(client, path, body) for path, body in requests))
            assert local.encoders["wide"].encoded_tokens > tokens
    assert len(set(alone)) > REQUESTS * 0.8
    for one, other in zip(alone, together, strict=True):
        assert one == other


async def test_a_bad_request_among_good_ones_fails_alone() -> None:
    good = [{"input": f"text number {number}"} for number in range(60)]
    bad = {"input": ["fine", [VOCABULARY_SIZE]]}
    with local_pipeline(fake_config(batching={"outstanding": 1})) as local:
        async with http_client(local) as client:
            alone = [await _ask(client, "/v1/embeddings", body) for body in good]
            bodies = [body for pair in zip(good, [bad] * len(good), strict=True) for body in pair]
            answers = await asyncio.gather(*(client.post("/v1/embeddings", json=body) for body in bodies))
    assert [answer.content for answer in answers[::2]] == alone
    assert {answer.status_code for answer in answers[1::2]} == {400}
    assert {answer.json()["error"]["param"] for answer in answers[1::2]} == {"input[1]"}

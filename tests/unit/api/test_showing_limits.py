"""``/tokenize`` and ``/detokenize`` go the way of all requests: time limit, admission, limits of size."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.api.llama_server import format_detokenize, format_tokenize
from cluster.tokenization import ShownTokens
from tests.support.pipelines import fake_config, http_client, ids_of, local_pipeline

BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/tokenize", {"content": "one two three"}),
    ("/detokenize", {"tokens": [5] * 13}),
]


class _Stalled:
    """Senders that answer when they may, and note who was dropped."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may = asyncio.Event()
        self.dropped = 0

    async def tokens(self, *arguments: object) -> ShownTokens:
        await self._wait()
        return ShownTokens(np.asarray([5, 6], dtype=np.int32))

    async def text(self, *arguments: object) -> str:
        await self._wait()
        return "five six"

    async def _wait(self) -> None:
        self.begun.set()
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.dropped += 1
            raise


@pytest.fixture
def stalled() -> _Stalled:
    return _Stalled()


@pytest.fixture
async def stalled_client(stalled: _Stalled) -> AsyncIterator[httpx.AsyncClient]:
    config = fake_config(limits={"max_queued_tokens": 20})
    with local_pipeline(config, tokens=stalled.tokens, text=stalled.text) as local:
        async with http_client(local) as opened:
            yield opened


@pytest.mark.parametrize(("path", "body"), BODIES)
@pytest.mark.parametrize("by_header", [True, False])
async def test_the_time_limit_ends_the_call(
    path: str, body: dict[str, Any], by_header: bool, stalled: _Stalled, stalled_client: httpx.AsyncClient
) -> None:
    more = {} if by_header else {"timeout_s": 0.02}
    headers = {"x-request-timeout-s": "0.02"} if by_header else {}
    response = await stalled_client.post(path, json={**body, **more, "strict": True}, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert stalled.dropped == 1


@pytest.mark.parametrize(("path", "body"), BODIES)
async def test_more_than_may_wait_is_refused(
    path: str, body: dict[str, Any], stalled: _Stalled, stalled_client: httpx.AsyncClient
) -> None:
    first = asyncio.create_task(stalled_client.post(path, json=body))
    await stalled.begun.wait()
    refused = await stalled_client.post(path, json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    stalled.may.set()
    assert (await first).status_code == 200
    assert (await stalled_client.post(path, json=body)).status_code == 200


@pytest.mark.parametrize(("path", "body"), BODIES)
async def test_the_limit_of_tokens_holds(path: str, body: dict[str, Any]) -> None:
    with local_pipeline(fake_config(limits={"max_tokens": 2})) as local:
        async with http_client(local) as client:
            response = await client.post(path, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (413, "payload_too_large")
    assert error["param"] == next(iter(body))


async def test_a_content_has_no_more_parts_than_a_request_may_have_items() -> None:
    with local_pipeline(fake_config(limits={"max_items": 3})) as local:
        async with http_client(local) as client:
            contents: list[object] = [["a", 5, "b"], [5] * 4, ["a", 5, "b", 6]]
            answers = [await client.post("/tokenize", json={"content": content}) for content in contents]
    assert [answer.status_code for answer in answers] == [200, 200, 413]
    assert answers[2].json()["error"]["param"] == "content"


@pytest.mark.parametrize(("path", "body"), BODIES)
@pytest.mark.parametrize("timeout_s", [0, -1, "soon", 1e9])
async def test_a_time_limit_that_is_none_is_refused(
    path: str, body: dict[str, Any], timeout_s: object, client: httpx.AsyncClient
) -> None:
    response = await client.post(path, json={**body, "timeout_s": timeout_s})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "timeout_s")


async def test_long_contents_come_back_whole(client: httpx.AsyncClient) -> None:
    text = " ".join(f"word{number % 30}" for number in range(70_000))
    ids = (await client.post("/tokenize", json={"content": text})).json()["tokens"]
    assert ids == ids_of(text).tolist()[1:-1]
    pieces = (await client.post("/tokenize", json={"content": text, "with_pieces": True})).json()["tokens"]
    assert [token["id"] for token in pieces] == ids
    assert " ".join(token["piece"] for token in pieces) == text
    assert (await client.post("/detokenize", json={"tokens": ids})).json() == {"content": text}


def test_pieces_that_are_not_utf8_are_printed_as_bytes() -> None:
    shown = ShownTokens(
        np.asarray([7, 5, 6, 5], dtype=np.int32),
        np.asarray([5, 6, 7], dtype=np.int32),
        [b"\xff\xfe", b'a"\n', "é".encode()],
    )
    assert json.loads(format_tokenize(shown, with_pieces=True)) == {
        "tokens": [
            {"id": 7, "piece": "é"},
            {"id": 5, "piece": [255, 254]},
            {"id": 6, "piece": 'a"\n'},
            {"id": 5, "piece": [255, 254]},
        ]
    }
    assert format_tokenize(shown, with_pieces=False) == b'{"tokens":[7,5,6,5]}'
    assert format_tokenize(ShownTokens(np.zeros(0, dtype=np.int32)), with_pieces=True) == b'{"tokens":[]}'


@pytest.mark.parametrize("text", ["", 'quote " and \\ and \n', "🙂" * 70_000, "x" * 65_536])
def test_text_is_printed_as_one_string(text: str) -> None:
    assert json.loads(format_detokenize(text)) == {"content": text}

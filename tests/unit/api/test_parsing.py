"""Large bodies are parsed in a process of their own, to the same calls, and with the same errors."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from starlette.requests import Request
from starlette.types import Message

from cluster.api import application
from cluster.api.application import create_application
from cluster.api.parsing import INLINE_BODY_BYTES, Parsers, packed, unpacked
from cluster.api.requests import BodyReader
from cluster.attempts import ARRIVED_S
from cluster.config import Limits
from cluster.errors import InvalidRequest, Overloaded, ReplicaLost
from tests.support.pipelines import fake_config, http_client, local_pipeline
from tests.support.servers import served

PAD = "p" * INLINE_BODY_BYTES


def echo(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> tuple[Any, Any]:
    return body["input"], headers["x"]


def fail(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> tuple[Any, Any]:
    raise InvalidRequest("this is wrong", "input[3]", detail=7)


def leave(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> tuple[Any, Any]:
    raise SystemExit(3)


async def _parse(parsers: Parsers, body: dict[str, Any], parse: Any = echo) -> Any:
    let_go = asyncio.Event()
    try:
        parts = [orjson.dumps(body)[:7], orjson.dumps(body)[7:]]
        return await parsers.parse(parts, let_go.set, None, parse, {"x": "y"}, Limits())
    finally:
        await asyncio.wait_for(let_go.wait(), 30)


async def test_what_another_process_parses_is_what_was_sent() -> None:
    parsers = Parsers()
    inputs = ["ein Text", "文本 😀", [1, 2, 3], ["a", 5, "b"], "", [2**31 - 1]]
    found, header = await _parse(parsers, {"input": inputs})
    assert header == "y"
    assert [item.tolist() if isinstance(item, np.ndarray) else item for item in found] == inputs
    assert [type(item) for item in found] == [str, str, np.ndarray, list, str, np.ndarray]
    assert (await _parse(parsers, {"input": "one"}))[0] == "one"


async def test_errors_of_another_process_are_raised_here() -> None:
    parsers = Parsers()
    with pytest.raises(InvalidRequest, match="this is wrong") as raised:
        await _parse(parsers, {"input": 1}, fail)
    assert (raised.value.param, raised.value.extra) == ("input[3]", {"detail": 7})
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        await parsers.parse([b'{"input":'], lambda: None, None, echo, {}, Limits())


async def test_a_process_that_ends_is_replaced() -> None:
    parsers = Parsers()
    with pytest.raises(ReplicaLost, match="has ended"):
        await _parse(parsers, {"input": 1}, leave)
    assert (await _parse(parsers, {"input": "again"}))[0] == "again"


async def test_a_process_that_ended_between_two_bodies_costs_nobody_an_answer() -> None:
    parsers = Parsers()
    await _parse(parsers, {"input": "one"})
    process = parsers._idle[0]._process
    process.kill()
    await asyncio.to_thread(process.wait, 30)
    assert (await _parse(parsers, {"input": "two"}))[0] == "two"


async def test_bodies_that_wait_to_be_parsed_are_counted_in_how_many_pieces_they_ever_came() -> None:
    limits = Limits(max_body_bytes=100_000)
    bodies, may = BodyReader(limits), threading.Event()
    raw = orjson.dumps({"input": "a", "user": "p" * 90_000})

    async def receive() -> Message:
        return {"type": "http.request", "body": raw, "more_body": False}

    async def one() -> object:
        return await bodies.parse(Request({"type": "http", "headers": [(b"x", b"y")]}, receive), echo)

    blocked = [asyncio.create_task(bodies._parsers._offload.run(0.01, may.wait, 30)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(one()) for _ in range(10)]
    results = asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert bodies.held_bytes == 8 * len(raw)
    may.set()
    await asyncio.gather(*blocked)
    assert [type(result) for result in await results] == [tuple] * 8 + [Overloaded] * 2
    assert bodies.held_bytes == 0


async def test_the_time_limit_counts_what_a_body_waits_to_be_parsed() -> None:
    made: list[BodyReader] = []
    with local_pipeline(fake_config()) as local, pytest.MonkeyPatch.context() as patched:
        patched.setattr(application, "BodyReader", lambda limits: made.append(BodyReader(limits)) or made[0])
        async with http_client(local) as client:
            may = threading.Event()
            blocked = [asyncio.create_task(made[0]._parsers._offload.run(0.01, may.wait, 30)) for _ in range(2)]
            body = {"content": "a", "padding": PAD}
            late = asyncio.create_task(client.post("/tokenize", json={**body, "timeout_s": 0.01}))
            while not made[0].held_bytes:
                await asyncio.wait([late], timeout=0.001)
            await asyncio.wait([late], timeout=0.02)
            may.set()
            await asyncio.gather(*blocked)
            assert (await late).status_code == 504
            assert (await client.post("/tokenize", json=body)).status_code == 200
    assert ARRIVED_S.get() is None


async def test_processes_end_with_their_owner() -> None:
    parsers = Parsers()
    await _parse(parsers, {"input": "a"})
    process = parsers._idle[0]._process
    del parsers
    gc.collect()
    assert process.returncode is not None


def test_pairs_and_nested_lists_survive_packing() -> None:
    value = ("a", [("x", "y"), "z", ("é", "")], [], None, 3)
    assert unpacked(packed(value)) == value


@pytest.mark.parametrize("padding", ["", PAD])
async def test_a_mixed_prompt_has_no_more_parts_than_a_request_may_have_items_whatever_the_bodys_size(
    padding: str,
) -> None:
    with local_pipeline(fake_config(limits={"max_items": 3})) as local:
        async with http_client(local) as client:
            inputs = [["a", 5, "b"], [["a", 5, "b"], "c", [5] * 9], ["a", 5, "b", 6], [["a", 5], ["b", 6]]]
            answers = [await client.post("/v1/embeddings", json={"input": each, "user": padding}) for each in inputs]
    assert [answer.status_code for answer in answers] == [200, 200, 413, 413]
    assert "in 4 parts and the limit is 3" in answers[-1].json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embedding", "/rerank", "/v2/rerank", "/score", "/classify"])
async def test_a_large_body_gets_the_answer_of_a_small_one(path: str) -> None:
    ranked = {"query": "a", "documents": ["b c", "d"], "text_1": "a", "text_2": ["b c", "d"]}
    body = {"input": ["a b", "c"], **(ranked if "rank" in path or "score" in path else {})}
    with local_pipeline(fake_config()) as local:
        async with http_client(local) as client:
            small, large = [await client.post(path, json=each) for each in (body, {**body, "user": PAD})]
    assert small.status_code == large.status_code == 200
    drop = {"id", "created"}
    small_json, large_json = small.json(), large.json()
    if isinstance(small_json, dict):
        small_json, large_json = ({k: v for k, v in each.items() if k not in drop} for each in (small_json, large_json))
    assert small_json == large_json


async def test_token_ids_of_a_large_body_are_taken_as_they_are() -> None:
    ids = [5, 6, 7, 8]
    with local_pipeline(fake_config()) as local:
        async with http_client(local) as client:
            small = await client.post("/v1/embeddings", json={"input": [ids, ["a", 5]]})
            large = await client.post("/v1/embeddings", json={"input": [ids, ["a", 5]], "user": PAD})
            too_long = await client.post("/v1/embeddings", json={"input": [5] * 100_000})
    assert small.status_code == 200
    assert small.json() == large.json()
    assert too_long.status_code == 400
    assert too_long.json()["error"]["n_prompt_tokens"] == 100_000


async def test_a_text_that_no_model_could_take_is_refused_unread() -> None:
    with local_pipeline(fake_config(limits={"max_text_bytes": 50_000})) as local:
        async with http_client(local) as client:
            texts = await client.post("/v1/embeddings", json={"input": ["a", "é" * 25_001]})
            one = await client.post("/rerank", json={"query": "q" * 50_001, "documents": ["a"]})
            fits = await client.post("/v1/embeddings", json={"input": "é" * 25_000, "truncate": "end"})
    assert texts.status_code == one.status_code == 413
    assert "input has a text of 50002 bytes and the limit of one text is 50000" in texts.json()["error"]["message"]
    assert one.json()["error"]["param"] == "query"
    assert fits.status_code == 200


def _listed(item: bytes, items: int) -> bytes:
    return b"[" + b",".join([item] * items) + b"]"


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":' + _listed(b"30000", 2_500_000) + b"}",
        b'{"input":' + _listed(b"[]", 2_000_000) + b"}",
        b'{"input":["' + b"a" * 16_000_000 + b'"]}',
    ],
    ids=["ids", "lists", "text"],
)
def test_the_event_loop_reads_no_part_of_a_large_body(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a large body is parsed in the server's process")

    monkeypatch.setattr("cluster.api.requests.parse_body", refuse)
    with local_pipeline(fake_config()) as local:
        application = create_application(local.pipeline, local.check_ready)
        with served(application) as url, httpx.Client(base_url=url, timeout=120) as client:
            assert 400 <= client.post("/v1/embeddings", content=body).status_code < 500

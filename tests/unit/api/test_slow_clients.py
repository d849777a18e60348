"""Clients that stall, drip, read slowly or leave: each is ended, and none of them stands in the way of others."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.api import transfers
from cluster.api.application import create_application
from cluster.api.transfers import Transfer, Transfers
from cluster.config import Limits
from cluster.errors import Overloaded, RequestTimeout
from cluster.telemetry.metrics import REGISTRY
from cluster.texts import TextBatch
from cluster.types import TokenBatch
from tests.support.pipelines import fake_config, http_client, local_pipeline
from tests.support.raw_http import connection, head, rest_of
from tests.support.servers import served

QUICK: dict[str, Any] = {"limits": {"stall_s": 0.2, "least_bytes_per_s": 1_000}}


@pytest.mark.parametrize(
    ("headers", "begun"),
    [
        (["content-length: 1000000"], b'{"input":"'),
        (["content-length: 1000000"], b""),
        (["transfer-encoding: chunked"], b'a\r\n{"input":"\r\n'),
        (["transfer-encoding: chunked"], b""),
    ],
)
def test_a_stalled_upload_is_ended_and_its_connection_closed(headers: list[str], begun: bytes) -> None:
    with (
        local_pipeline(fake_config(**QUICK)) as local,
        served(create_application(local.pipeline, local.check_ready)) as url,
        connection(url) as client,
    ):
        client.sendall(head("/v1/embeddings", *headers) + begun)
        answer = rest_of(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()
    assert b'"code":"request_timeout"' in answer


def test_a_body_that_drips_is_ended() -> None:
    with (
        local_pipeline(fake_config(**QUICK)) as local,
        served(create_application(local.pipeline, local.check_ready)) as url,
        connection(url) as client,
    ):
        client.sendall(head("/v1/rerank", "content-length: 1000000") + b'{"query":"')
        client.settimeout(0.02)
        answer = b""
        while not answer:
            try:
                client.sendall(b"a")
                answer = client.recv(4_096)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


class _Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(transfers, "time", made)
    return made


def _stalled(bodies: Transfers, size_bytes: int) -> asyncio.Task[BaseException | None]:
    """A body that never comes whole, in a task of its own; its result is what ended it."""

    async def read() -> BaseException | None:
        transfer = bodies.open()
        transfer.begin()
        transfer.moved(size_bytes)
        bodies.hold(transfer, size_bytes)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancelled:
            return transfer.cause(cancelled)
        finally:
            bodies.close(transfer)
        return None

    return asyncio.create_task(read())


def _open(bodies: Transfers) -> Transfer:
    transfer = bodies.open()
    transfer.begin()
    return transfer


async def test_stalled_bodies_make_room_for_others_the_longest_stalled_first(clock: _Clock) -> None:
    bodies = Transfers("bodies", Limits(), 800, 10.0)
    stalled = []
    for _ in range(8):
        stalled.append(_stalled(bodies, 100))
        await asyncio.sleep(0)
        clock.now_s += 0.5
    good = _open(bodies)
    bodies.hold(good, 150)
    await asyncio.sleep(0.001)
    assert [task.done() for task in stalled] == [True, True, *[False] * 6]
    assert isinstance(stalled[0].result(), RequestTimeout)
    assert bodies.held_bytes == 750
    for task in stalled[2:]:
        task.cancel()
    await asyncio.gather(*stalled, return_exceptions=True)
    assert bodies.held_bytes == 150


async def test_where_all_are_quick_the_newcomer_is_refused(clock: _Clock) -> None:
    bodies = Transfers("bodies", Limits(), 800, 10.0)
    quick = [_stalled(bodies, 400) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="800 bytes together"):
        bodies.hold(_open(bodies), 1)
    assert not any(task.done() for task in quick)
    for task in quick:
        task.cancel()


async def test_a_body_that_once_was_quick_is_ended_when_it_stalls(clock: _Clock) -> None:
    limits = Limits(least_bytes_per_s=100, transfer_timeout_s=60)
    transfer = _open(Transfers("bodies", limits, 10**9, 10.0))
    transfer.moved(50_000_000)
    late = []
    for _ in range(3):
        clock.now_s += 10
        late.append(transfer.late(clock.now_s, limits, 10.0))
    assert late == [False, True, True]


async def test_no_transfer_may_take_longer_than_its_time(clock: _Clock) -> None:
    limits = Limits(least_bytes_per_s=0, transfer_timeout_s=60)
    transfer = _open(Transfers("bodies", limits, 10**9, 10.0))
    clock.now_s += 59
    assert not transfer.late(clock.now_s, limits, 10.0)
    clock.now_s += 2
    assert transfer.late(clock.now_s, limits, 10.0)


def _cut_off() -> float:
    labels = {"path": "/v1/embeddings", "code": "slow_reader"}
    return REGISTRY.get_sample_value("poolhouse_refusals_total", labels) or 0.0


def test_a_client_that_does_not_read_is_cut_off_and_others_are_answered() -> None:
    texts = b'{"pooling":"none","input":[%s]}' % b",".join([b'"%s"' % (b"a b " * 200)] * 150)
    limits = {"stall_s": 0.05, "least_bytes_per_s": 1_000_000}
    before = _cut_off()
    with (
        local_pipeline(fake_config(limits=limits)) as local,
        served(create_application(local.pipeline, local.check_ready)) as url,
        connection(url, 4_096) as client,
    ):
        client.sendall(head("/v1/embeddings", f"content-length: {len(texts)}") + texts)
        start = client.recv(512)
        assert start.startswith(b"HTTP/1.1 200 ")
        announced = int(start.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        waited = threading.Event()
        for _ in range(600):
            if _cut_off() > before or waited.wait(0.05):
                break
        assert _cut_off() == before + 1
        assert httpx.post(f"{url}/v1/embeddings", json={"input": "a"}).status_code == 200
        read = len(rest_of(client))
    assert read < announced


async def test_a_long_answer_is_whole_and_its_length_is_announced() -> None:
    texts = [f"text number {number}" for number in range(600)]
    with local_pipeline(fake_config()) as local:
        async with http_client(local) as client:
            for accept in ("application/json", "application/octet-stream"):
                answer = await client.post("/v1/embeddings", json={"input": texts}, headers={"accept": accept})
                assert answer.status_code == 200
                assert int(answer.headers["content-length"]) == len(answer.content)
            alone = await client.post("/v1/embeddings", json={"input": texts[-1]})
            together = await client.post("/v1/embeddings", json={"input": texts})
    assert len(together.content) > 65_536
    data = together.json()["data"]
    assert [item["index"] for item in data] == list(range(600))
    np.testing.assert_array_equal(data[-1]["embedding"], alone.json()["data"][0]["embedding"])


@pytest.mark.parametrize(
    ("options", "headers", "status", "said"),
    [
        ({"pooling": "none"}, {}, 413, "application/octet-stream"),
        ({"pooling": "none"}, {"accept": "application/octet-stream"}, 200, ""),
        ({"pooling": "none", "encoding_format": "base64"}, {}, 200, ""),
        ({"pooling": "mean"}, {}, 200, ""),
    ],
)
async def test_an_answer_above_the_limit_is_refused_before_it_is_computed(
    options: dict[str, str], headers: dict[str, str], status: int, said: str
) -> None:
    limits = {"max_answer_bytes": 100_000}
    with local_pipeline(fake_config(limits=limits)) as local:
        async with http_client(local) as client:
            # 1,002 tokens of 16 numbers: 64 kB binary, 85 kB in base64, 208 kB as JSON.
            body = {"input": " ".join(["a"] * 400), **options}
            bodies = {**body, "input": [body["input"], body["input"], "a " * 198]}
            answer = await client.post("/v1/embeddings", json=bodies, headers=headers)
            encoded = local.encoders["wide"].encoded_tokens
    assert answer.status_code == status, answer.text[:300]
    if status == 413:
        message = answer.json()["error"]["message"]
        assert "limit is 100000 (limits.max_answer_bytes)" in message
        assert said in message
        # The self-test's tokens alone.
        assert encoded < 200


async def test_numbers_that_are_cut_only_later_are_limited_too() -> None:
    with local_pipeline(fake_config(limits={"max_answer_bytes": 20_000})) as local:
        async with http_client(local) as client:
            body = {"input": "a " * 400, "pooling": "none", "output_dtype": "ubinary", "encoding_format": "base64"}
            answer = await client.post("/v1/embeddings", json=body)
    assert answer.status_code == 413
    assert "before they are cut" in answer.json()["error"]["message"]


async def test_work_of_clients_that_leave_does_not_pile_up() -> None:
    begun, end = threading.Semaphore(0), threading.Event()
    running = 0

    with local_pipeline(fake_config(batching={"outstanding": 8})) as local:
        tokenizer = local.stages._tokenizer
        tokenize = tokenizer.tokenize

        def slow(batch: TextBatch) -> TokenBatch:
            nonlocal running
            if batch.weight > 100_000:
                running += 1
                begun.release()
                end.wait(60)
            return tokenize(batch)

        tokenizer.tokenize = slow  # type: ignore[method-assign]
        async with http_client(local) as client:
            body = b'{"input":"' + b"a " * 60_000 + b'","truncate":"end","timeout_s":300}'
            leaving = [asyncio.create_task(client.post("/v1/embeddings", content=body)) for _ in range(50)]
            assert await asyncio.to_thread(begun.acquire, timeout=60)
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            # Long enough for a thread, and not so long that it would wait behind those of the clients that have left.
            good = await asyncio.wait_for(
                client.post("/v1/embeddings", json={"input": "a " * 10_000, "truncate": "end"}), 60
            )
            assert good.status_code == 200
            end.set()
    assert running < 5


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/rerank", {"query": "q", "documents": ["a"] * 3_000}, "documents"),
        ("/rerank", {"query": "q", "texts": ["a " * 30_000] * 4, "return_text": True}, "texts"),
        ("/score", {"text_1": "q", "text_2": ["a"] * 3_000}, "text_2"),
        ("/classify", {"input": ["a"] * 3_000}, "input"),
        ("/tokenize", {"content": "a " * 20_000}, "content"),
        ("/tokenize", {"content": "a " * 5_000, "with_pieces": True}, "content"),
        ("/detokenize", {"tokens": [5] * 100_000}, "tokens"),
    ],
)
async def test_an_answer_that_could_never_be_written_is_refused_for_good(
    path: str, body: dict[str, Any], param: str
) -> None:
    with local_pipeline(fake_config(limits={"max_answer_bytes": 100_000})) as local:
        async with http_client(local) as client:
            response = await client.post(path, json=body)
    assert response.status_code == 413
    assert "limit is 100000 (limits.max_answer_bytes)" in response.text
    assert "texts" in body or response.json()["error"]["param"] == param

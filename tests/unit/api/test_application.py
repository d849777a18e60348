from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.api.application import create_application
from cluster.errors import NotReady
from cluster.quarantine import client_of
from cluster.types import TokenBatch, VectorBatch
from tests.support.pipelines import LocalPipeline, fake_config, http_client, local_pipeline

POST_PATHS = ["/v1/embeddings", "/embeddings", "/embedding", "/tokenize", "/detokenize"]
GET_PATHS = ["/v1/models", "/models", "/info", "/health"]


async def _chunks(raw: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(raw), 10):
        yield raw[begin : begin + 10]


class TestPaths:
    @pytest.mark.parametrize("path", POST_PATHS)
    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    async def test_a_wrong_method_on_a_working_path_names_the_right_one(
        self, client: httpx.AsyncClient, path: str, method: str
    ) -> None:
        response = await client.request(method, path)
        assert response.status_code == 405
        error = response.json()["error"]
        assert (error["code"], error["type"]) == ("method_not_allowed", "invalid_request_error")
        assert f"{path} does not take {method}; it takes POST" in error["message"]

    @pytest.mark.parametrize("path", GET_PATHS)
    async def test_listings_are_not_posted_to(self, client: httpx.AsyncClient, path: str) -> None:
        response = await client.post(path, json={})
        assert response.status_code == 405
        assert "GET" in response.json()["error"]["message"]

    @pytest.mark.parametrize("path", ["/nowhere", "/v2/embeddings", "/docs", "/openapi.json", "/%ff%00"])
    async def test_an_unknown_path_is_a_json_404(self, client: httpx.AsyncClient, path: str) -> None:
        response = await client.post(path, json={})
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


class TestHealth:
    async def test_a_ready_server_says_so(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/health")
        assert (response.status_code, response.json()) == (200, {"status": "ok"})

    async def test_a_starting_server_says_when_to_come_back(self, local: LocalPipeline) -> None:
        async def check_ready() -> None:
            raise NotReady("not running yet: Encoder-wide; try again", retry_after_s=1)

        async with http_client(local, check_ready) as client:
            response = await client.get("/health")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["code"] == "not_ready"

    async def test_an_encoder_whose_thread_has_ended_is_not_healthy(self) -> None:
        with local_pipeline(fake_config()) as local:
            local.encoders["narrow"].close()
            async with http_client(local) as client:
                response = await client.get("/health")
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "engine_error"


class TestClients:
    async def test_an_address_whose_texts_ended_encoders_is_refused_and_its_neighbour_is_answered(self) -> None:
        with local_pipeline(fake_config()) as local:
            for _ in range(10):
                local.pipeline.stages.quarantine._count(client_of(None, "192.0.2.7"))
            application = create_application(local.pipeline, local.check_ready)
            answers = {}
            for address in ("192.0.2.7", "192.0.2.8"):
                transport = httpx.ASGITransport(app=application, client=(address, 1))
                async with httpx.AsyncClient(transport=transport, base_url="http://poolhouse") as client:
                    answers[address] = await client.post("/v1/embeddings", json={"input": "a text"})
        assert answers["192.0.2.7"].status_code == 429
        assert int(answers["192.0.2.7"].headers["retry-after"]) > 500
        assert answers["192.0.2.8"].status_code == 200


class TestLimits:
    async def test_a_declared_body_over_the_limit_is_refused_unread(self) -> None:
        unread = True

        async def body() -> AsyncIterator[bytes]:
            nonlocal unread
            unread = False
            yield b"{}"

        with local_pipeline(fake_config(limits={"max_body_bytes": 100})) as local:
            async with http_client(local) as client:
                headers = {"content-length": "101", "content-type": "application/json"}
                response = await client.post("/v1/embeddings", content=body(), headers=headers)
        assert response.status_code == 413
        assert "101 bytes and the limit is 100" in response.json()["error"]["message"]
        assert unread

    @pytest.mark.parametrize("path", POST_PATHS)
    async def test_a_chunked_body_over_the_limit_is_refused(self, path: str) -> None:
        raw = json.dumps({"input": "a" * 100}).encode()
        with local_pipeline(fake_config(limits={"max_body_bytes": 100})) as local:
            async with http_client(local) as client:
                response = await client.post(path, content=_chunks(raw))
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "payload_too_large"

    async def test_a_chunked_body_is_read_no_further_than_the_limit(self) -> None:
        read = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal read
            for _ in range(1_000):
                read += 10
                yield b" " * 10

        with local_pipeline(fake_config(limits={"max_body_bytes": 100})) as local:
            async with http_client(local) as client:
                response = await client.post("/v1/embeddings", content=body())
        assert response.status_code == 413
        assert read <= 120

    async def test_bodies_that_are_read_at_once_are_bounded_together(self) -> None:
        begun = asyncio.Semaphore(0)
        end = asyncio.Event()
        whole = b'{"input":"a"}'.ljust(95)

        async def body() -> AsyncIterator[bytes]:
            yield whole[:90]
            begun.release()
            await end.wait()
            yield whole[90:]

        with local_pipeline(fake_config(limits={"max_body_bytes": 100})) as local:
            async with http_client(local) as client:
                slow = [asyncio.create_task(client.post("/v1/embeddings", content=body())) for _ in range(8)]
                for _ in slow:
                    await begun.acquire()
                refused = await client.post("/v1/rerank", content=whole)
                end.set()
                assert {(await response).status_code for response in slow} == {200}
                after = await client.post("/v1/embeddings", content=whole)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert after.status_code == 200

    async def test_a_chunked_body_within_the_limit_is_read(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/v1/embeddings", content=_chunks(b'{"input":"a text in chunks"}'))
        assert response.status_code == 200

    @pytest.mark.parametrize(("items", "status"), [(3, 200), (4, 413)])
    async def test_items_are_limited(self, items: int, status: int) -> None:
        with local_pipeline(fake_config(limits={"max_items": 3})) as local:
            async with http_client(local) as client:
                response = await client.post("/v1/embeddings", json={"input": ["a"] * items})
        assert response.status_code == status

    @pytest.mark.parametrize(("texts", "status"), [(["a b"], 200), (["a b", "c"], 413)])
    async def test_tokens_of_a_request_are_limited(self, texts: list[str], status: int) -> None:
        with local_pipeline(fake_config(limits={"max_tokens": 4})) as local:
            async with http_client(local) as client:
                response = await client.post("/v1/embeddings", json={"input": texts})
        assert response.status_code == status
        if status == 413:
            error = response.json()["error"]
            assert error["param"] == "input"
            assert "7 tokens and the limit is 4" in error["message"]

    async def test_a_request_that_takes_too_long_ends_with_its_own_limit(self) -> None:
        never = asyncio.Event()

        async def encode(name: str, batch: TokenBatch) -> VectorBatch:
            await never.wait()
            raise AssertionError("unreachable")

        with local_pipeline(fake_config(), encode=encode) as local:
            async with http_client(local) as client:
                response = await client.post("/v1/embeddings", json={"input": "a", "timeout_s": 0.02})
                assert response.status_code == 504
                assert "within 0.02 s" in response.json()["error"]["message"]
                response = await client.post(
                    "/v1/embeddings", json={"input": "a"}, headers={"x-request-timeout-s": "0.02"}
                )
                assert response.status_code == 504


class TestKeys:
    KEYS = (
        {"id": "all", "sha256": hashlib.sha256(b"alpha").hexdigest()},
        {"id": "few", "sha256": hashlib.sha256(b"beta").hexdigest(), "models": ["short"], "max_items": 2},
    )

    @pytest.fixture
    async def guarded(self, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
        file = tmp_path / "keys.json"
        file.write_text(json.dumps(self.KEYS))
        with local_pipeline(fake_config(api_keys={"file": str(file)})) as local:
            async with http_client(local) as client:
                yield client

    @pytest.mark.parametrize("path", [*POST_PATHS, *GET_PATHS])
    async def test_every_path_but_health_asks_for_a_key(self, guarded: httpx.AsyncClient, path: str) -> None:
        response = await guarded.request("POST" if path in POST_PATHS else "GET", path)
        if path == "/health":
            assert response.status_code == 200
            return
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"authorization": "Bearer alpha"}, 200),
            ({"x-api-key": "alpha"}, 200),
            ({"authorization": "Bearer gamma"}, 401),
        ],
    )
    async def test_a_known_key_opens(self, guarded: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
        response = await guarded.post("/v1/embeddings", json={"input": "a"}, headers=headers)
        assert response.status_code == status

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/embeddings", {"input": "a"}),
            ("/embedding", {"content": "a"}),
            ("/tokenize", {"content": "a"}),
            ("/detokenize", {"tokens": [5]}),
        ],
    )
    async def test_a_keys_models_hold_on_every_path(
        self, guarded: httpx.AsyncClient, path: str, body: dict[str, Any]
    ) -> None:
        headers = {"authorization": "Bearer beta"}
        allowed = await guarded.post(path, json={**body, "model": "short"}, headers=headers)
        assert allowed.status_code == 200
        for model in ({}, {"model": "fake"}, {"model": "text-embedding-3-small"}):
            response = await guarded.post(path, json={**body, **model}, headers=headers)
            assert response.status_code == 403
            assert response.json()["error"]["param"] == "model"

    @pytest.mark.parametrize(("items", "status"), [(2, 200), (3, 413)])
    async def test_a_keys_items_are_limited(self, guarded: httpx.AsyncClient, items: int, status: int) -> None:
        body = {"input": ["a"] * items, "model": "short"}
        response = await guarded.post("/v1/embeddings", json=body, headers={"authorization": "Bearer beta"})
        assert response.status_code == status

    async def test_a_failure_is_logged_with_the_id_of_the_key(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def encode(name: str, batch: TokenBatch) -> VectorBatch:
            raise RuntimeError("broken")

        file = tmp_path / "keys.json"
        file.write_text(json.dumps(self.KEYS))
        with local_pipeline(fake_config(api_keys={"file": str(file)}), encode=encode) as local:
            async with http_client(local) as client:
                response = await client.post("/embedding", json={"input": "a"}, headers={"x-api-key": "alpha"})
        assert response.status_code == 500
        assert "of the key 'all'" in caplog.text
        assert "alpha" not in caplog.text

    async def test_keys_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEST_KEYS", "ops:alpha")
        with local_pipeline(fake_config(api_keys={"environment": "TEST_KEYS"})) as local:
            async with http_client(local) as client:
                assert (await client.get("/v1/models")).status_code == 401
                assert (await client.get("/v1/models", headers={"x-api-key": "alpha"})).status_code == 200


class TestFaults:
    async def test_an_unforeseen_fault_is_logged_and_not_shown(self, caplog: pytest.LogCaptureFixture) -> None:
        async def encode(name: str, batch: TokenBatch) -> VectorBatch:
            raise RuntimeError("an inner secret")

        with local_pipeline(fake_config(), encode=encode) as local:
            async with http_client(local) as client:
                with caplog.at_level(logging.ERROR, logger="poolhouse"):
                    response = await client.post(
                        "/v1/embeddings", json={"input": "a"}, headers={"x-request-id": "request-7"}
                    )
        assert response.status_code == 500
        assert "request-7" in response.json()["error"]["message"]
        assert "an inner secret" not in response.text
        assert "request-7" in caplog.text
        assert "an inner secret" in caplog.text

    async def test_a_client_that_leaves_in_mid_body_leaves_the_server_whole(self, local: LocalPipeline) -> None:
        application = create_application(local.pipeline, local.check_ready)
        messages = iter([{"type": "http.request", "body": b'{"inp', "more_body": True}, {"type": "http.disconnect"}])
        sent: list[Any] = []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/embeddings",
            "raw_path": b"/v1/embeddings",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"100")],
        }
        await application(scope, receive, send)
        assert sent[0]["status"] == 400
        assert b"ended early" in sent[1]["body"]
        async with http_client(local) as client:
            assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 200


async def test_paths_answer_below_a_path_of_their_own_too() -> None:
    with local_pipeline(fake_config()) as local:
        application = create_application(local.pipeline, local.check_ready)
        for root in ("", "/below"):
            transport = httpx.ASGITransport(app=application, root_path=root)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                answer = await client.post(f"{root}/v1/embeddings", json={"input": "a text"})
                assert (answer.status_code, len(answer.json()["data"])) == (200, 1)
                assert (await client.get(f"{root}/v1/embeddings")).status_code == 405
                assert (await client.post(f"{root}/v1/embedding", json={})).status_code == 404

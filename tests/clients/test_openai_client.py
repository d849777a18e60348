"""The official ``openai`` client, unchanged, over a socket."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import openai
import pytest

from cluster.types import PoolingType
from tests.support.pipelines import expected_rows, ids_of

KEY = "sk-test"
TEXT = "The capital of China is Beijing."
OTHER = "Gravity pulls."
MODEL = "text-embedding-3-small"


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key=KEY, max_retries=0) as opened:
        yield opened


@pytest.fixture
async def async_client(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key=KEY, max_retries=0) as opened:
        yield opened


def _check(answer: openai.types.CreateEmbeddingResponse, texts: list[str]) -> None:
    assert answer.object == "list"
    assert answer.model == "fake"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(len(ids_of(text)) for text in texts)
    assert [item.index for item in answer.data] == list(range(len(texts)))
    for item, text in zip(answer.data, texts, strict=True):
        vector = np.asarray(item.embedding, dtype=np.float32)
        assert np.array_equal(vector, expected_rows(text, PoolingType.MEAN)[0])


# Without encoding_format the client asks for base64 and decodes it itself.
@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["base64 by default", "float"])
def test_the_client_reads_vectors(client: openai.OpenAI, options: dict[str, Any]) -> None:
    _check(client.embeddings.create(model=MODEL, input=TEXT, **options), [TEXT])
    _check(client.embeddings.create(model=MODEL, input=[TEXT, OTHER], **options), [TEXT, OTHER])


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["base64 by default", "float"])
async def test_the_async_client_reads_vectors(async_client: openai.AsyncOpenAI, options: dict[str, Any]) -> None:
    _check(await async_client.embeddings.create(model=MODEL, input=[TEXT, OTHER], **options), [TEXT, OTHER])


def test_base64_that_is_asked_for_is_handed_on(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input=TEXT, encoding_format="base64")
    printed: Any = answer.data[0].embedding
    vector = np.frombuffer(base64.b64decode(printed), dtype="<f4")
    assert np.array_equal(vector, expected_rows(TEXT, PoolingType.MEAN)[0])


def test_ids_and_lists_of_ids_are_taken(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model=MODEL, input=[5, 6, 7]).data
    two = client.embeddings.create(model=MODEL, input=[[5, 6, 7], [8]]).data
    assert len(one) == 1
    assert len(two) == 2
    assert one[0].embedding == two[0].embedding


def test_dimensions_and_user_are_taken(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input=TEXT, dimensions=8, user="someone")
    vector = np.asarray(answer.data[0].embedding)
    assert vector.shape == (8,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "last", "weighted"])
def test_pooling_goes_in_the_extra_body(client: openai.OpenAI, pooling: str) -> None:
    answer = client.embeddings.create(model=MODEL, input=TEXT, extra_body={"pooling": pooling})
    vector = np.asarray(answer.data[0].embedding, dtype=np.float32)
    assert np.array_equal(vector, expected_rows(TEXT, PoolingType(pooling))[0])


def test_token_matrices_can_be_reshaped(client: openai.OpenAI) -> None:
    item = client.embeddings.create(model=MODEL, input=TEXT, extra_body={"pooling": "none"}).data[0]
    shape = (item.model_extra or {})["shape"]
    rows = np.asarray(item.embedding, dtype=np.float32).reshape(shape)
    assert np.array_equal(rows, expected_rows(TEXT, PoolingType.NONE))


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fake", "short"]


@pytest.mark.parametrize("name", ["fake", "text-embedding-3-small"])
def test_a_model_is_retrieved_by_name_and_by_alias(client: openai.OpenAI, name: str) -> None:
    assert client.models.retrieve(name).id == "fake"


def test_an_unknown_model_is_not_retrieved(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("organisation/nowhere")
    assert unknown.value.code == "model_not_found"


def test_errors_are_the_clients_own(client: openai.OpenAI, base_url: str) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(model="nowhere", input=TEXT)
    assert (unknown.value.code, unknown.value.param, unknown.value.type) == (
        "model_not_found",
        "model",
        "not_found_error",
    )
    with pytest.raises(openai.BadRequestError) as too_long:
        client.embeddings.create(model=MODEL, input=[TEXT, "word " * 600])
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "input[1]")
    with (
        openai.OpenAI(base_url=f"{base_url}/v1", api_key="sk-other", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.embeddings.create(model=MODEL, input=TEXT)
    assert refused.value.code == "invalid_api_key"


async def test_the_async_client_raises_its_own_errors(async_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as empty:
        await async_client.embeddings.create(model=MODEL, input=[])
    assert empty.value.param == "input"


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nx-api-key: sk-test\r\ncontent-length: 1000\r\n\r\n" + b'{"input":',
        b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nx-api-key: sk-test\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
        b"\x00\xff\r\n\r\n",
    ],
    ids=["body cut off", "bad chunk", "negative length", "no HTTP"],
)
def test_a_broken_request_leaves_the_server_whole(client: openai.OpenAI, base_url: str, raw: bytes) -> None:
    with socket.create_connection(
        (urlsplit(base_url).hostname or "", urlsplit(base_url).port or 0), timeout=10
    ) as peer:
        peer.sendall(raw)
        peer.shutdown(socket.SHUT_WR)
        # Read to the end: the server has then dealt with the request.
        while peer.recv(65_536):
            pass
    _check(client.embeddings.create(model=MODEL, input=TEXT), [TEXT])


def test_large_answers_arrive_whole(base_url: str) -> None:
    texts = [f"text {number}" for number in range(5_000)]
    with httpx.Client(base_url=base_url, headers={"x-api-key": KEY}, timeout=60) as plain:
        answer = plain.post("/v1/embeddings", json={"input": texts}, headers={"accept": "application/octet-stream"})
    assert answer.status_code == 200
    assert sum(len(name) + len(value) for name, value in answer.headers.raw) < 8_192

"""A key that is restricted to some models learns of no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.pipelines import fake_config, http_client, local_pipeline

SECRET, OPEN, OTHER = "secret-model", "open-model", "secret-other"
ALIAS = "secret-alias"


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    records = [
        {"id": "restricted", "sha256": hashlib.sha256(b"restricted").hexdigest(), "models": [OPEN]},
        {"id": "whole", "sha256": hashlib.sha256(b"whole").hexdigest()},
    ]
    monkeypatch.setenv("RESTRICTED_KEYS", json.dumps(records))
    config = fake_config(
        models={
            SECRET: {"source": "fake", "aliases": [ALIAS]},
            OTHER: {"source": "fake"},
            OPEN: {"source": "fake", "aliases": ["open-alias"]},
        },
        encoders={
            "secret-encoder": {"model": SECRET, "engine": "fake", "pooling": ["mean"]},
            "secret-ranks": {"model": OTHER, "engine": "fake"},
            "open-encoder": {"model": OPEN, "engine": "fake"},
        },
        api_keys={"environment": "RESTRICTED_KEYS"},
    )
    with local_pipeline(config) as local:
        async with http_client(local, headers={"authorization": "Bearer restricted"}) as opened:
            yield opened


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_the_list_has_only_its_models(path: str, client: httpx.AsyncClient) -> None:
    response = await client.get(path)
    assert [model["id"] for model in response.json()["data"]] == [OPEN]
    assert "secret" not in response.text


async def test_info_tells_of_its_models_and_their_encoders(client: httpx.AsyncClient) -> None:
    response = await client.get("/info")
    info = response.json()
    assert [model["id"] for model in info["models"]] == [OPEN]
    assert list(info["encoders"]) == ["open-encoder"]
    assert info["default_model"] is None
    assert "secret" not in response.text


async def test_a_key_without_a_list_sees_all(client: httpx.AsyncClient) -> None:
    info = (await client.get("/info", headers={"authorization": "Bearer whole"})).json()
    assert [model["id"] for model in info["models"]] == [SECRET, OTHER, OPEN]
    assert list(info["encoders"]) == ["secret-encoder", "secret-ranks", "open-encoder"]
    assert info["default_model"] == SECRET


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
@pytest.mark.parametrize(("name", "status"), [(OPEN, 200), ("open-alias", 200), (SECRET, 403), (ALIAS, 403)])
async def test_one_model_is_shown_to_whom_it_answers(
    path: str, name: str, status: int, client: httpx.AsyncClient
) -> None:
    response = await client.get(f"{path}/{name}")
    assert response.status_code == status
    assert "secret" not in response.text.replace(name, "")


BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/embeddings", {"input": "a"}),
    ("/embedding", {"content": "a"}),
    ("/tokenize", {"content": "a"}),
    ("/detokenize", {"tokens": [5]}),
    ("/v1/rerank", {"query": "a", "documents": ["a"]}),
    ("/v1/rerank", {"query": "a", "documents": ["a"], "strategy": "similarity"}),
    ("/v2/rerank", {"query": "a", "documents": ["a"]}),
    ("/rerank", {"query": "a", "texts": ["a"]}),
    ("/score", {"text_1": "a", "text_2": "a"}),
    ("/classify", {"input": "a"}),
    ("/predict", {"inputs": "a"}),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["a"]}}),
]


@pytest.mark.parametrize(("path", "body"), BODIES)
@pytest.mark.parametrize(
    ("name", "status"), [(OPEN, 200), (SECRET, 403), (ALIAS, 403), ("secret-mode", 404), ("x", 404)]
)
async def test_no_path_tells_of_another_model(
    path: str, body: dict[str, Any], name: str, status: int, client: httpx.AsyncClient
) -> None:
    response = await client.post(path, json={**body, "model": name})
    assert response.status_code == status
    told = response.text + str(response.headers)
    assert "secret" not in told.replace(f"'{name}'", "").replace(f"\\'{name}\\'", "")


@pytest.mark.parametrize(("path", "body"), BODIES)
async def test_a_request_that_names_no_model_is_not_told_the_default_ones_name(
    path: str, body: dict[str, Any], client: httpx.AsyncClient
) -> None:
    response = await client.post(path, json=body)
    assert "secret" not in response.text + str(response.headers)
    ranks = "similarity" not in str((path, body)) and ("rank" in path or path in ("/score", "/classify", "/predict"))
    assert response.status_code == (200 if ranks else 403)

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from cluster.types import PoolingType
from tests.support.pipelines import DIMENSIONS, SHORT_MODEL_TOKENS, fake_config, http_client, local_pipeline


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_models_say_what_they_answer(client: httpx.AsyncClient, path: str) -> None:
    listing = (await client.get(path)).json()
    assert listing["object"] == "list"
    fake, short = listing["data"]
    assert (fake["id"], fake["object"], fake["owned_by"]) == ("fake", "model", "poolhouse")
    assert fake["aliases"] == ["text-embedding-3-small"]
    assert fake["pooling_types"] == [pooling.value for pooling in PoolingType]
    assert fake["default_pooling"] == "mean"
    assert (fake["dimensions"], fake["context_length"], fake["max_model_len"]) == (DIMENSIONS, 512, 512)
    assert fake["prompts"] == ["document", "query"]
    assert short["pooling_types"] == ["mean", "cls"]
    assert short["context_length"] == SHORT_MODEL_TOKENS
    assert fake["fingerprint"] != short["fingerprint"]


async def test_the_fingerprint_is_that_of_the_answers(client: httpx.AsyncClient) -> None:
    fake = (await client.get("/v1/models")).json()["data"][0]
    answer = (await client.post("/v1/embeddings", json={"input": "a"})).json()
    assert answer["fingerprint"] == fake["fingerprint"]


async def test_info_names_version_wiring_limits_and_encoders(client: httpx.AsyncClient) -> None:
    info = (await client.get("/info")).json()
    assert info["version"] == version("poolhouse")
    assert info["wiring"] == "fused"
    assert info["default_model"] == "fake"
    assert info["limits"]["max_items"] == 50_000
    assert info["limits"]["max_tokens"] is None
    assert [model["id"] for model in info["models"]] == ["fake", "short"]
    assert info["encoders"] == {"wide": {"model": "fake", "weight": 1.0}, "narrow": {"model": "short", "weight": 1.0}}


@pytest.mark.parametrize("prefix", ["/v1/models", "/models"])
@pytest.mark.parametrize("name", ["fake", "text-embedding-3-small", "organisation/fake", "organisation%2Ffake"])
async def test_one_model_is_found_by_name_and_by_alias(prefix: str, name: str) -> None:
    models = {"fake": {"source": "fake", "aliases": ["text-embedding-3-small", "organisation/fake"]}}
    config = fake_config(models=models, encoders={"wide": {"model": "fake", "engine": "fake"}})
    with local_pipeline(config) as local:
        async with http_client(local) as client:
            listed = (await client.get(prefix)).json()["data"][0]
            response = await client.get(f"{prefix}/{name}")
    assert response.status_code == 200
    assert response.json() == listed


@pytest.mark.parametrize("name", ["fakes", "", "a/b/c", "%00", "%ff", "m" * 5_000])
async def test_an_unknown_model_names_those_that_exist(client: httpx.AsyncClient, name: str) -> None:
    response = await client.get(f"/v1/models/{name}")
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "models here: fake, short" in error["message"]
    assert len(error["message"]) < 1_000


async def test_info_lists_every_path_that_the_readme_names(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/info")).json()["paths"]
    assert len(listed) == len(set(listed))
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    table = readme.partition("\n## Endpoints\n")[2].partition("\n## ")[0]
    named = {
        spelled.split()[-1]
        for row in re.findall(r"^\|(.+?)\|", table, flags=re.MULTILINE)
        for spelled in re.findall(r"`(.+?)`", row)
    }
    assert named
    assert named <= {entry.split()[1] for entry in listed}


async def test_every_listed_path_answers(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/info")).json()["paths"]
    assert "POST /v1/embeddings" in paths
    for entry in paths:
        method, path = entry.split()
        response = await client.request(method, path.replace("{model}", "fake"), json={} if method == "POST" else None)
        # An empty body is a bad request, which only a path that is there says.
        assert response.status_code in ((400, 422) if method == "POST" else (200,)), entry

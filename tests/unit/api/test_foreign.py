from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from cluster.types import PoolingType
from tests.support.pipelines import expected_rows

PATHS = ("/v1/embeddings", "/embeddings", "/embedding")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("field", "value", "ours"),
    [
        ("output_dimension", 8, "dimensions"),
        ("output_dimension", "8", "dimensions"),
        ("embedding_type", "binary", "output_dtype"),
        ("embedding_type", "ubinary", "output_dtype"),
        ("embedding_type", "base64", "encoding_format"),
        ("embedding_type", ["int8"], "output_dtype"),
        ("embedding_type", ["float", "binary"], "output_dtype"),
        ("late_chunking", True, "pooling"),
        ("late_chunking", 1, "pooling"),
        ("return_multivector", True, 'pooling: "none"'),
        ("normalized", False, "embd_normalize: -1"),
        ("normalized", 1, "embd_normalize"),
        ("normalized", "true", "embd_normalize"),
        ("task", "retrieval.query", "input_type"),
        ("task", "", "input_type"),
    ],
)
async def test_a_field_that_would_change_the_vectors_is_refused(
    path: str, field: str, value: Any, ours: str, client: httpx.AsyncClient
) -> None:
    response = await client.post(path, json={"input": "a", field: value})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == field
    assert error["message"].startswith(f"{field} is ")
    assert ours in error["message"].partition("; ")[2]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "given",
    [
        {"output_dimension": None, "embedding_type": None, "late_chunking": None, "task": None},
        {"embedding_type": "float", "late_chunking": False, "return_multivector": False, "normalized": True},
        {"embedding_type": ["float"]},
    ],
)
async def test_their_defaults_ask_for_what_is_answered(
    path: str, given: dict[str, Any], client: httpx.AsyncClient
) -> None:
    plain = await client.post(path, json={"input": "a"})
    response = await client.post(path, json={"input": "a", "strict": True, **given})
    assert (response.status_code, response.json()) == (200, plain.json())
    assert "x-poolhouse-ignored-fields" not in response.headers


async def test_fields_that_change_no_vector_stay_ignored(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/v1/embeddings", json={"input": "a", "truncation": True, "return_tokenized_input": True}
    )
    assert response.status_code == 200
    assert response.headers["x-poolhouse-ignored-fields"] == "truncation,return_tokenized_input"


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_scores_have_none_of_these_fields_to_mistake(path: str, client: httpx.AsyncClient) -> None:
    response = await client.post(path, json={"query": "a", "documents": ["a"], "task": "rank", "normalized": False})
    assert response.status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("field", ["input", "content"])
async def test_a_list_mixes_texts_ids_and_objects(path: str, field: str, client: httpx.AsyncClient) -> None:
    body = {
        field: [
            "one",
            {"prompt_string": "two words"},
            [5, 6],
            {"content": [{"type": "text", "text": "three "}, {"type": "text", "text": "parts"}]},
        ]
    }
    answer = (await client.post(path, json=body)).json()
    items = answer["data"] if isinstance(answer, dict) else answer
    vectors = [np.ravel(item["embedding"]) for item in items]
    expected = [expected_rows(item, PoolingType.MEAN)[0] for item in ("one", "two words", [5, 6], "three parts")]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


@pytest.mark.parametrize("path", [*PATHS, "/v1/rerank"])
async def test_what_exceeds_the_context_is_called_too_large(path: str, client: httpx.AsyncClient) -> None:
    text = "word " * 600
    body = {"query": "a", "documents": [text]} if "rank" in path else {"input": text}
    response = await client.post(path, json=body)
    assert response.status_code == 400
    assert "too large" in response.json()["error"]["message"]

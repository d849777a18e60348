"""Items and fields that ``POST /v1/embeddings`` cuts, refuses or ignores."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from cluster.types import Float32, PoolingType
from tests.support.pipelines import SHORT_MODEL, VOCABULARY_SIZE, expected_rows, ids_of

TEXT = "The capital of China is Beijing."
OTHER = "Gravity pulls."
LONG = " ".join(f"word{number}" for number in range(600))


async def _post(client: httpx.AsyncClient, status: int = 200, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/embeddings", json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def _rows(answer: dict[str, Any]) -> list[Float32]:
    return [np.asarray(item["embedding"], dtype=np.float32) for item in answer["data"]]


class TestTruncation:
    @pytest.mark.parametrize("options", [{}, {"truncate": "none"}, {"truncate": False}])
    async def test_too_long_is_an_error_with_both_lengths(
        self, client: httpx.AsyncClient, options: dict[str, Any]
    ) -> None:
        error = (await _post(client, 400, input=LONG, **options))["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (602, 512)
        assert "602 tokens" in error["message"]
        assert "512" in error["message"]

    @pytest.mark.parametrize("side", ["end", "start", True])
    async def test_truncation_keeps_special_tokens_and_says_what_it_cut(
        self, client: httpx.AsyncClient, side: str | bool
    ) -> None:
        response = await client.post(
            "/v1/embeddings", json={"input": [LONG, TEXT], "truncate": side, "pooling": "none"}
        )
        answer = response.json()
        content = ids_of(LONG)[1:-1].tolist()
        kept = content[-510:] if side == "start" else content[:510]
        assert np.array_equal(_rows(answer)[0], expected_rows([101, *kept, 102], PoolingType.NONE))
        assert np.array_equal(_rows(answer)[1], expected_rows(TEXT, PoolingType.NONE))
        assert [(item["tokens"], item["truncated_tokens"]) for item in answer["data"]] == [
            (512, 90),
            (len(ids_of(TEXT)), 0),
        ]
        assert response.headers["x-poolhouse-truncated-tokens"] == "90"

    async def test_the_longest_text_that_fits_is_not_cut(self, client: httpx.AsyncClient) -> None:
        text = " ".join(f"word{number}" for number in range(14))
        answer = await _post(client, input=text, model=SHORT_MODEL)
        assert (answer["data"][0]["tokens"], answer["data"][0]["truncated_tokens"]) == (16, 0)
        await _post(client, 400, input=text + " more", model=SHORT_MODEL)

    async def test_ids_are_cut_as_well(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, input=list(range(1, 21)), model=SHORT_MODEL, truncate="start", pooling="cls")
        assert np.array_equal(_rows(answer)[0], expected_rows(range(5, 21), PoolingType.CLS)[0])
        assert answer["data"][0]["truncated_tokens"] == 4


class TestBadItems:
    async def test_every_item_that_is_too_long_is_named(self, client: httpx.AsyncClient) -> None:
        error = (await _post(client, 400, input=[TEXT, LONG, OTHER, LONG]))["error"]
        assert error["code"] == "context_length_exceeded"
        assert error["param"] == "input[1], input[3]"
        assert "2 of 4 items" in error["message"]

    async def test_one_bad_item_of_several_is_named_alone(self, client: httpx.AsyncClient) -> None:
        error = (await _post(client, 400, input=[TEXT, LONG]))["error"]
        assert error["param"] == "input[1]"
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (602, 512)

    async def test_ids_outside_the_vocabulary_name_the_setting_that_sends_them(self, client: httpx.AsyncClient) -> None:
        error = (await _post(client, 400, input=[[5], [VOCABULARY_SIZE], [6], [7, 2**31 - 1]]))["error"]
        assert error["param"] == "input[1], input[3]"
        assert str(VOCABULARY_SIZE) in error["message"]
        assert "check_embedding_ctx_length" in error["message"]

    async def test_the_last_id_of_the_vocabulary_is_taken(self, client: httpx.AsyncClient) -> None:
        await _post(client, input=[VOCABULARY_SIZE - 1])

    async def test_too_long_and_outside_the_vocabulary_are_named_together(self, client: httpx.AsyncClient) -> None:
        error = (await _post(client, 400, input=[LONG, [VOCABULARY_SIZE], TEXT]))["error"]
        assert error["param"] == "input[0], input[1]"


class TestUnknown:
    async def test_an_unknown_model_names_those_that_exist(self, client: httpx.AsyncClient) -> None:
        error = (await _post(client, 404, input=TEXT, model="fak"))["error"]
        assert (error["code"], error["param"], error["type"]) == ("model_not_found", "model", "not_found_error")
        assert "did you mean 'fake'" in error["message"]
        assert "models here: fake, short" in error["message"]

    async def test_unknown_fields_are_ignored_and_named_in_the_header(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/v1/embeddings", json={"input": TEXT, "poling": "cls", "temperature": 1})
        assert response.status_code == 200
        assert response.json()["pooling"] == "mean"
        assert response.headers["x-poolhouse-ignored-fields"] == "poling,temperature"

    async def test_strict_makes_unknown_fields_an_error(self, client: httpx.AsyncClient) -> None:
        error = (await _post(client, 400, input=TEXT, poling="cls", strict=True))["error"]
        assert error["param"] == "poling"
        assert "did you mean 'pooling'" in error["message"]

    async def test_strict_passes_a_body_without_unknown_fields(self, client: httpx.AsyncClient) -> None:
        await _post(client, input=TEXT, user="u", pooling="cls", strict=True)

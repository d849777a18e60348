from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.types import PoolingType
from tests.support.pipelines import DIMENSIONS, VOCABULARY_SIZE, expected_rows, ids_of

TEXT = "The capital of China is Beijing."
OTHER = "Gravity pulls."
PATHS = ["/embedding", "/embeddings"]


async def _post(client: httpx.AsyncClient, path: str, status: int = 200, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


class TestEmbedding:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("field", ["content", "input"])
    async def test_the_answer_is_a_bare_list_of_two_dimensional_embeddings(
        self, client: httpx.AsyncClient, path: str, field: str
    ) -> None:
        body: dict[str, Any] = {field: [TEXT, OTHER]}
        answer = await _post(client, path, **body)
        assert [item["index"] for item in answer] == [0, 1]
        for item, text in zip(answer, (TEXT, OTHER), strict=True):
            rows = np.asarray(item["embedding"], dtype=np.float32)
            assert np.array_equal(rows, expected_rows(text, PoolingType.MEAN))
            assert (item["tokens"], item["truncated_tokens"]) == (len(ids_of(text)), 0)

    @pytest.mark.parametrize("path", PATHS)
    async def test_none_has_a_row_for_each_token_not_normalised(self, client: httpx.AsyncClient, path: str) -> None:
        answer = await _post(client, path, content=TEXT, pooling="none")
        rows = np.asarray(answer[0]["embedding"], dtype=np.float32)
        assert np.array_equal(rows, expected_rows(TEXT, PoolingType.NONE))

    @pytest.mark.parametrize("pooling", ["cls", "last", "weighted", "rank"])
    async def test_pooled_answers_have_one_row(self, client: httpx.AsyncClient, pooling: str) -> None:
        answer = await _post(client, "/embedding", content=TEXT, pooling=pooling)
        assert np.asarray(answer[0]["embedding"]).shape == (1, 1 if pooling == "rank" else DIMENSIONS)

    async def test_embd_normalize_is_taken(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, "/embedding", content=TEXT, embd_normalize=1)
        assert np.abs(answer[0]["embedding"]).sum() == pytest.approx(1, abs=1e-5)

    async def test_special_tokens_in_the_text_are_parsed_unless_told_otherwise(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, "/embedding", content="SEP", pooling="none")
        assert np.array_equal(
            np.asarray(answer[0]["embedding"], dtype=np.float32), expected_rows([101, 102, 102], PoolingType.NONE)
        )
        answer = await _post(client, "/embedding", content="SEP", pooling="none", parse_special=False)
        assert np.array_equal(
            np.asarray(answer[0]["embedding"], dtype=np.float32), expected_rows("SEP", PoolingType.NONE)
        )

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ([5, 6], [5, 6]),
            ([5, "a"], [5, *ids_of("a").tolist()[1:]]),
            ({"prompt_string": TEXT}, TEXT),
            ({"content": [{"type": "text", "text": TEXT}]}, TEXT),
        ],
    )
    async def test_llama_servers_forms_of_content_are_read(
        self, client: httpx.AsyncClient, content: Any, expected: Any
    ) -> None:
        answer = await _post(client, "/embedding", content=content)
        assert len(answer) == 1
        rows = np.asarray(answer[0]["embedding"], dtype=np.float32)
        assert np.array_equal(rows, expected_rows(expected, PoolingType.MEAN))

    async def test_base64_holds_the_same_numbers(self, client: httpx.AsyncClient) -> None:
        item = (await _post(client, "/embedding", content=TEXT, pooling="none", encoding_format="base64"))[0]
        rows = np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4").reshape(item["tokens"], -1)
        assert np.array_equal(rows, expected_rows(TEXT, PoolingType.NONE))

    @pytest.mark.parametrize("path", PATHS)
    async def test_a_body_with_model_gets_openais_shape(self, client: httpx.AsyncClient, path: str) -> None:
        answer = await _post(client, path, input=TEXT, model="fake")
        assert answer["object"] == "list"
        assert np.array_equal(
            np.asarray([answer["data"][0]["embedding"]], dtype=np.float32), expected_rows(TEXT, PoolingType.MEAN)
        )

    @pytest.mark.parametrize("body", [{"input": TEXT, "pooling": "none"}, {"content": TEXT}])
    async def test_none_and_content_keep_the_bare_list_even_with_model(
        self, client: httpx.AsyncClient, body: dict[str, Any]
    ) -> None:
        assert isinstance(await _post(client, "/embeddings", **body, model="fake"), list)

    async def test_content_gets_the_bare_list_on_openais_path(self, client: httpx.AsyncClient) -> None:
        assert isinstance(await _post(client, "/v1/embeddings", content=TEXT), list)

    async def test_errors_name_the_field_that_was_sent(self, client: httpx.AsyncClient) -> None:
        error = (await _post(client, "/embedding", 400, content=["a", "", [VOCABULARY_SIZE]]))["error"]
        assert error["param"] == "content[1]"
        error = (await _post(client, "/embedding", 400, content=["a", [VOCABULARY_SIZE]]))["error"]
        assert error["param"] == "content[1]"

    async def test_ignored_fields_are_named(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/embedding", json={"content": TEXT, "image_data": []})
        assert response.headers["x-poolhouse-ignored-fields"] == "image_data"


class TestTokenize:
    async def test_ids_are_without_special_tokens_by_default(self, client: httpx.AsyncClient) -> None:
        assert await _post(client, "/tokenize", content=TEXT) == {"tokens": ids_of(TEXT).tolist()[1:-1]}

    async def test_special_tokens_are_added_on_request(self, client: httpx.AsyncClient) -> None:
        assert await _post(client, "/tokenize", content=TEXT, add_special=True) == {"tokens": ids_of(TEXT).tolist()}

    async def test_pieces_are_shown_on_request(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, "/tokenize", content="a b", with_pieces=True)
        ids = ids_of("a b").tolist()[1:-1]
        assert answer == {"tokens": [{"id": ids[0], "piece": "a"}, {"id": ids[1], "piece": "b"}]}

    @pytest.mark.parametrize(("parse_special", "ids"), [({}, [102]), ({"parse_special": True}, [102])])
    async def test_special_text_is_parsed_by_default(
        self, client: httpx.AsyncClient, parse_special: dict[str, bool], ids: list[int]
    ) -> None:
        assert await _post(client, "/tokenize", content="SEP", **parse_special) == {"tokens": ids}

    async def test_special_text_can_be_left_as_words(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, "/tokenize", content="SEP", parse_special=False)
        assert answer == {"tokens": ids_of("SEP").tolist()[1:-1]}

    @pytest.mark.parametrize(("content", "ids"), [("", []), ([], []), ([5, "SEP", 6], [5, 102, 6])])
    async def test_empty_and_mixed_contents_are_taken(
        self, client: httpx.AsyncClient, content: Any, ids: list[int]
    ) -> None:
        assert await _post(client, "/tokenize", content=content) == {"tokens": ids}

    @pytest.mark.parametrize(
        "content", [None, 3, {}, [-1], [2**31], [2**63], [1e30], [True], [[1]], [None], [VOCABULARY_SIZE]]
    )
    async def test_bad_contents_are_refused(self, client: httpx.AsyncClient, content: Any) -> None:
        error = (await _post(client, "/tokenize", 400, content=content))["error"]
        assert error["type"] == "invalid_request_error"

    @pytest.mark.parametrize("field", ["add_special", "parse_special", "with_pieces"])
    async def test_flags_are_booleans(self, client: httpx.AsyncClient, field: str) -> None:
        error = (await _post(client, "/tokenize", 400, content=TEXT, **{field: 1}))["error"]
        assert error["param"] == field

    async def test_an_unknown_model_is_named(self, client: httpx.AsyncClient) -> None:
        error = (await _post(client, "/tokenize", 404, content=TEXT, model="nowhere"))["error"]
        assert error["code"] == "model_not_found"

    async def test_ignored_fields_are_named(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/tokenize", json={"content": TEXT, "extra": 1})
        assert response.headers["x-poolhouse-ignored-fields"] == "extra"


class TestDetokenize:
    async def test_ids_become_text(self, client: httpx.AsyncClient) -> None:
        tokens = (await _post(client, "/tokenize", content="to and fro"))["tokens"]
        assert await _post(client, "/detokenize", tokens=tokens) == {"content": "to and fro"}

    async def test_no_ids_are_no_text(self, client: httpx.AsyncClient) -> None:
        assert await _post(client, "/detokenize", tokens=[]) == {"content": ""}

    @pytest.mark.parametrize(
        ("tokens", "named"),
        [
            (None, "null"),
            ("5", "the string '5'"),
            ([5, "a"], "the string 'a'"),
            ([True], "true"),
            ([-1], "-1"),
            ([5.0], "5.0"),
            ([2**63], str(2**63)),
            ([[5]], "a list"),
            ([VOCABULARY_SIZE], str(VOCABULARY_SIZE)),
        ],
    )
    async def test_what_is_no_id_is_named(self, client: httpx.AsyncClient, tokens: Any, named: str) -> None:
        error = (await _post(client, "/detokenize", 400, tokens=tokens))["error"]
        assert named in error["message"]

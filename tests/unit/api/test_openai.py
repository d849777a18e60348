from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.api.openai import parse_embeddings
from cluster.calls import Encoding, OutputType
from cluster.config import Limits, Truncate
from cluster.errors import InvalidRequest
from cluster.pooling import quantize
from cluster.types import Float32, Lane, PoolingType
from tests.support.pipelines import DIMENSIONS, SHORT_MODEL, expected_rows, ids_of

TEXT = "The capital of China is Beijing."
OTHER = "Gravity pulls."
LONG = " ".join(f"word{number}" for number in range(600))
VECTORS = [pooling for pooling in PoolingType if pooling not in (PoolingType.NONE, PoolingType.RANK)]


async def _post(client: httpx.AsyncClient, status: int = 200, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/embeddings", json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def _rows(answer: dict[str, Any]) -> list[Float32]:
    return [np.asarray(item["embedding"], dtype=np.float32) for item in answer["data"]]


class TestShape:
    async def test_a_string_is_one_vector(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/v1/embeddings", json={"input": TEXT})
        answer = response.json()
        assert response.headers["content-type"] == "application/json"
        tokens = len(ids_of(TEXT))
        item = answer["data"][0]
        assert np.array_equal(_rows(answer)[0], expected_rows(TEXT, PoolingType.MEAN)[0])
        assert {**item, "embedding": None} == {
            "object": "embedding",
            "index": 0,
            "embedding": None,
            "tokens": tokens,
            "truncated_tokens": 0,
        }
        assert answer["object"] == "list"
        assert answer["model"] == "fake"
        assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        assert answer["pooling"] == "mean"
        assert response.headers["x-poolhouse-fingerprint"] == answer["fingerprint"]
        assert response.headers["x-poolhouse-pooling"] == "mean"
        assert response.headers["x-poolhouse-tokens"] == str(tokens)
        assert float(response.headers["x-total-time-ms"]) > 0

    async def test_a_list_of_strings_keeps_its_order(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, input=[TEXT, OTHER, TEXT])
        assert [item["index"] for item in answer["data"]] == [0, 1, 2]
        assert [item["tokens"] for item in answer["data"]] == [len(ids_of(text)) for text in (TEXT, OTHER, TEXT)]
        for row, text in zip(_rows(answer), (TEXT, OTHER, TEXT), strict=True):
            assert np.array_equal(row, expected_rows(text, PoolingType.MEAN)[0])

    async def test_ids_are_one_sequence_as_they_are(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, input=[5, 6, 7])
        assert len(answer["data"]) == 1
        assert answer["usage"]["prompt_tokens"] == 3
        assert np.array_equal(_rows(answer)[0], expected_rows([5, 6, 7], PoolingType.MEAN)[0])

    async def test_lists_of_ids_are_as_many_sequences(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, input=[[5, 6, 7], [8]])
        for row, ids in zip(_rows(answer), ([5, 6, 7], [8]), strict=True):
            assert np.array_equal(row, expected_rows(ids, PoolingType.MEAN)[0])

    async def test_a_mixed_prompt_is_one_sequence(self, client: httpx.AsyncClient) -> None:
        text = ids_of("a b").tolist()[1:-1]
        begins_with_ids = await _post(client, input=[5, "a b", 6], pooling="none")
        assert np.array_equal(_rows(begins_with_ids)[0], expected_rows([5, *text, 6, 102], PoolingType.NONE))
        begins_with_text = await _post(client, input=["a b", 6], pooling="none")
        assert np.array_equal(_rows(begins_with_text)[0], expected_rows([101, *text, 6, 102], PoolingType.NONE))

    async def test_texts_ids_and_mixed_prompts_stand_beside_each_other(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, input=[TEXT, [5, 6], [5, "a"], {"prompt_string": OTHER}])
        expected = [TEXT, [5, 6], [5, *ids_of("a").tolist()[1:]], OTHER]
        for row, item in zip(_rows(answer), expected, strict=True):
            assert np.array_equal(row, expected_rows(item, PoolingType.MEAN)[0])

    async def test_numbers_in_json_are_the_same_as_in_base64(self, client: httpx.AsyncClient) -> None:
        as_json = await _post(client, input=[TEXT, OTHER], encoding_format="float")
        as_base64 = await _post(client, input=[TEXT, OTHER], encoding_format="base64")
        for row, item in zip(_rows(as_json), as_base64["data"], strict=True):
            assert (item["encoding_format"], item["shape"]) == ("base64", [DIMENSIONS])
            assert np.array_equal(np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4"), row)

    async def test_user_and_null_fields_change_nothing(self, client: httpx.AsyncClient) -> None:
        response = await client.post(
            "/v1/embeddings",
            json={"input": TEXT, "user": "u-1", "dimensions": None, "encoding_format": None, "model": None},
        )
        assert response.status_code == 200
        assert "x-poolhouse-ignored-fields" not in response.headers

    async def test_a_texts_special_tokens_are_words_unless_asked(self, client: httpx.AsyncClient) -> None:
        parsed = await _post(client, input="SEP", pooling="none", parse_special=True)
        assert np.array_equal(_rows(parsed)[0], expected_rows([101, 102, 102], PoolingType.NONE))
        plain = await _post(client, input="SEP", pooling="none")
        assert np.array_equal(_rows(plain)[0], expected_rows("SEP", PoolingType.NONE))


class TestPooling:
    @pytest.mark.parametrize("pooling", VECTORS)
    async def test_every_pooling_type_is_a_normalised_vector(
        self, client: httpx.AsyncClient, pooling: PoolingType
    ) -> None:
        answer = await _post(client, input=[TEXT, OTHER], pooling=pooling.value)
        assert answer["pooling"] == pooling.value
        for row, text in zip(_rows(answer), (TEXT, OTHER), strict=True):
            assert np.array_equal(row, expected_rows(text, pooling)[0])
            assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)

    async def test_none_is_a_token_matrix_that_is_not_normalised(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, input=[TEXT, OTHER], pooling="none")
        for row, text in zip(_rows(answer), (TEXT, OTHER), strict=True):
            assert np.array_equal(row, expected_rows(text, PoolingType.NONE))

    async def test_a_token_matrix_in_base64_says_its_shape(self, client: httpx.AsyncClient) -> None:
        item = (await _post(client, input=TEXT, pooling="none", encoding_format="base64"))["data"][0]
        assert item["shape"] == [len(ids_of(TEXT)), DIMENSIONS]
        rows = np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4").reshape(item["shape"])
        assert np.array_equal(rows, expected_rows(TEXT, PoolingType.NONE))

    async def test_rank_is_the_heads_outputs(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, input=[TEXT, OTHER], pooling="rank")
        assert [row.tolist() for row in _rows(answer)] == [[0.0], [0.0]]

    async def test_a_pooling_type_that_no_encoder_answers_names_those_that_are(self, client: httpx.AsyncClient) -> None:
        error = (await _post(client, 400, input=TEXT, model=SHORT_MODEL, pooling="last"))["error"]
        assert (error["code"], error["param"]) == ("pooling_not_available", "pooling")
        assert "It answers: mean, cls" in error["message"]


class TestOptions:
    @pytest.mark.parametrize("p", [-1, 0, 1, 2, 3, 2.5, 1000])
    @pytest.mark.parametrize("pooling", [PoolingType.MEAN, PoolingType.NONE])
    async def test_embd_normalize_is_llama_cpps(
        self, client: httpx.AsyncClient, p: float, pooling: PoolingType
    ) -> None:
        answer = await _post(client, input=TEXT, pooling=pooling.value, embd_normalize=p)
        rows = _rows(answer)[0].reshape(-1, DIMENSIONS)
        assert np.array_equal(rows, expected_rows(TEXT, pooling, p))

    @pytest.mark.parametrize("dimensions", [1, 5, DIMENSIONS])
    async def test_dimensions_cut_and_normalise_again(self, client: httpx.AsyncClient, dimensions: int) -> None:
        row = _rows(await _post(client, input=TEXT, dimensions=dimensions))[0]
        whole = expected_rows(TEXT, PoolingType.MEAN)[0][:dimensions]
        assert row.shape == (dimensions,)
        assert row == pytest.approx(whole / np.linalg.norm(whole), abs=1e-6)

    async def test_a_model_may_limit_the_dimensions(self, client: httpx.AsyncClient) -> None:
        assert _rows(await _post(client, input=TEXT, model=SHORT_MODEL, dimensions=8))[0].shape == (8,)
        error = (await _post(client, 400, input=TEXT, model=SHORT_MODEL, dimensions=5))["error"]
        assert error["param"] == "dimensions"
        assert "4, 8" in error["message"]

    async def test_scores_have_no_dimensions_to_cut(self, client: httpx.AsyncClient) -> None:
        error = (await _post(client, 400, input=TEXT, pooling="rank", dimensions=1))["error"]
        assert error["param"] == "dimensions"

    @pytest.mark.parametrize("output_type", list(OutputType))
    async def test_every_output_type_is_printed_with_its_shape(
        self, client: httpx.AsyncClient, output_type: OutputType
    ) -> None:
        body: dict[str, Any] = {"input": TEXT, "dimensions": 12, "output_dtype": output_type.value}
        vector = _rows(await _post(client, input=TEXT, dimensions=12))[0]
        expected = quantize(vector, output_type)
        as_json = (await _post(client, **body))["data"][0]
        assert np.array_equal(np.asarray(as_json["embedding"], dtype=expected.dtype), expected)
        as_base64 = (await _post(client, **body, encoding_format="base64"))["data"][0]
        raw = np.frombuffer(base64.b64decode(as_base64["embedding"]), dtype=expected.dtype)
        assert np.array_equal(raw.reshape(as_base64["shape"]), expected)

    @pytest.mark.parametrize(
        ("field", "name", "prompt"),
        [
            ("input_type", "query", "query: "),
            ("prompt_name", "document", "passage: "),
            ("input_type", "search_document", "passage: "),
        ],
    )
    async def test_a_prompt_stands_before_the_text(
        self, client: httpx.AsyncClient, field: str, name: str, prompt: str
    ) -> None:
        body: dict[str, Any] = {"input": TEXT, field: name}
        row = _rows(await _post(client, **body))[0]
        assert np.array_equal(row, expected_rows(prompt + TEXT, PoolingType.MEAN)[0])

    async def test_an_alias_is_the_model(self, client: httpx.AsyncClient) -> None:
        answer = await _post(client, input=TEXT, model="text-embedding-3-small")
        assert answer["model"] == "fake"


class TestOctetStream:
    @pytest.mark.parametrize("accept", ["application/octet-stream", "Application/Octet-Stream;q=1, */*"])
    async def test_vectors_are_one_npy_array(self, client: httpx.AsyncClient, accept: str) -> None:
        response = await client.post("/v1/embeddings", json={"input": [TEXT, OTHER]}, headers={"accept": accept})
        assert response.headers["content-type"] == "application/octet-stream"
        rows = np.load(io.BytesIO(response.content))
        expected = [expected_rows(text, PoolingType.MEAN)[0] for text in (TEXT, OTHER)]
        assert np.array_equal(rows, np.stack(expected))
        assert response.headers["x-poolhouse-fingerprint"]

    @pytest.mark.parametrize("path", ["/v1/embeddings", "/embedding", "/embeddings"])
    async def test_token_matrices_are_one_npy_array_with_offsets(self, client: httpx.AsyncClient, path: str) -> None:
        response = await client.post(
            path,
            json={"input": [LONG, TEXT], "pooling": "none", "truncate": "end"},
            headers={"accept": "application/octet-stream"},
        )
        stream = io.BytesIO(response.content)
        rows, offsets, tokens, cut = (np.load(stream) for _ in range(4))
        assert response.headers["x-poolhouse-offsets"] == ",".join(map(str, offsets))
        assert (tokens.tolist(), cut.tolist()) == ([512, len(ids_of(TEXT))], [90, 0])
        assert np.array_equal(rows[offsets[1] : offsets[2]], expected_rows(TEXT, PoolingType.NONE))

    async def test_scores_are_one_column(self, client: httpx.AsyncClient) -> None:
        response = await client.post(
            "/v1/embeddings",
            json={"input": [TEXT, OTHER], "pooling": "rank"},
            headers={"accept": "application/octet-stream"},
        )
        assert np.load(io.BytesIO(response.content)).shape == (2, 1)

    async def test_errors_are_json_whatever_is_accepted(self, client: httpx.AsyncClient) -> None:
        response = await client.post(
            "/v1/embeddings", json={"input": []}, headers={"accept": "application/octet-stream"}
        )
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "input"


class TestParsing:
    def test_every_field_reaches_the_call(self) -> None:
        body = {
            "input": ["a"],
            "model": "m",
            "pooling": "last",
            "truncate": "start",
            "prompt_name": "query",
            "parse_special": True,
            "lane": "bulk",
            "timeout_s": 2.5,
            "embd_normalize": 1,
            "dimensions": 8,
            "encoding_format": "base64",
            "output_dtype": "int8",
        }
        call, unknown = parse_embeddings(body, {}, Limits())
        assert unknown == []
        assert (call.inputs, call.model, call.pooling, call.truncate) == (["a"], "m", PoolingType.LAST, Truncate.START)
        assert (call.prompt_name, call.parse_special, call.lane, call.timeout_s) == ("query", True, Lane.BULK, 2.5)
        assert (call.options.normalize, call.options.dimensions) == (1.0, 8)
        assert (call.options.encoding, call.options.output_type) == (Encoding.BASE64, OutputType.INT8)
        assert call.param == "input"

    def test_what_is_absent_is_left_to_the_model(self) -> None:
        call, _ = parse_embeddings({"input": "a"}, {}, Limits())
        given = (
            call.model,
            call.pooling,
            call.truncate,
            call.prompt_name,
            call.parse_special,
            call.lane,
            call.timeout_s,
        )
        assert set(given) == {None}
        assert call.options.normalize is None

    def test_prompt_name_comes_before_input_type(self) -> None:
        call, _ = parse_embeddings({"input": "a", "prompt_name": "query", "input_type": "document"}, {}, Limits())
        assert call.prompt_name == "query"

    def test_the_header_gives_a_timeout_that_the_body_overrules(self) -> None:
        headers = {"x-request-timeout-s": "3"}
        assert parse_embeddings({"input": "a"}, headers, Limits())[0].timeout_s == 3
        assert parse_embeddings({"input": "a", "timeout_s": 1}, headers, Limits())[0].timeout_s == 1

    @pytest.mark.parametrize("header", ["soon", "nan", "inf", "0", "-1", "1e9"])
    def test_a_bad_timeout_header_is_named(self, header: str) -> None:
        with pytest.raises(InvalidRequest) as raised:
            parse_embeddings({"input": "a"}, {"x-request-timeout-s": header}, Limits())
        assert raised.value.param == "x-request-timeout-s"

    def test_raw_is_not_offered_as_an_encoding(self) -> None:
        with pytest.raises(InvalidRequest, match=r"send one of: float, base64$"):
            parse_embeddings({"input": "a", "encoding_format": "raw"}, {}, Limits())

"""Whatever a client sends: a clear 4xx in less than two seconds, and the next good request is answered as before."""

from __future__ import annotations

import time
from typing import Any

import httpx
import orjson
import pytest

from tests.support.bad_bodies import BAD_FIELDS, NO_OBJECT, NOT_JSON

GOOD = {"input": ["The capital of China is Beijing.", [5, 6, 7]]}
WITHIN_S = 2.0


async def _send(
    client: httpx.AsyncClient, raw: bytes, path: str = "/v1/embeddings", content_type: str | None = "application/json"
) -> httpx.Response:
    """Send ``raw``, and prove that the answer comes in time and that a good request is answered as before it."""
    before = await client.post("/v1/embeddings", json=GOOD)
    assert before.status_code == 200
    # Seconds of CPU time, which a busy machine does not stretch.
    began_s = time.process_time()
    response = await client.post(path, content=raw, headers={"content-type": content_type} if content_type else {})
    assert time.process_time() - began_s < WITHIN_S
    after = await client.post("/v1/embeddings", json=GOOD)
    assert after.content == before.content
    return response


def _check_error(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert 10 < len(error["message"]) < 4_000
    return error


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embedding", "/tokenize", "/detokenize"])
@pytest.mark.parametrize("kind", NOT_JSON)
async def test_a_body_that_is_not_json_is_refused(client: httpx.AsyncClient, kind: str, path: str) -> None:
    error = _check_error(await _send(client, NOT_JSON[kind], path))
    assert "the body is" in error["message"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embedding", "/tokenize", "/detokenize"])
@pytest.mark.parametrize("kind", NO_OBJECT)
async def test_a_body_that_is_no_object_is_refused(client: httpx.AsyncClient, kind: str, path: str) -> None:
    error = _check_error(await _send(client, NO_OBJECT[kind], path))
    assert "send a JSON object" in error["message"]


@pytest.mark.parametrize(("body", "param"), [case[1:] for case in BAD_FIELDS], ids=[case[0] for case in BAD_FIELDS])
async def test_a_bad_field_is_named(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    assert _check_error(await _send(client, orjson.dumps(body)))["param"] == param


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_wrong_content_type_is_refused(client: httpx.AsyncClient, content_type: str) -> None:
    error = _check_error(await _send(client, orjson.dumps(GOOD), content_type=content_type), 415)
    assert "application/json" in error["message"]


async def test_no_content_type_is_taken_for_json(client: httpx.AsyncClient) -> None:
    assert (await _send(client, orjson.dumps(GOOD), content_type=None)).status_code == 200


async def test_a_huge_integer_beyond_64_bits_is_no_id(client: httpx.AsyncClient) -> None:
    _check_error(await _send(client, b'{"input":[%d]}' % 10**30))
    _check_error(await _send(client, b'{"input":"a","dimensions":%d}' % 10**30))
    _check_error(await _send(client, b'{"content":[%d]}' % 10**30, "/tokenize"))
    _check_error(await _send(client, b'{"tokens":[%d]}' % 10**30, "/detokenize"))


async def test_an_integer_of_a_million_digits_is_refused(client: httpx.AsyncClient) -> None:
    _check_error(await _send(client, b'{"input":[' + b"9" * 1_000_000 + b"]}"))


async def test_one_hundred_thousand_items_are_over_the_limit(client: httpx.AsyncClient) -> None:
    error = _check_error(await _send(client, orjson.dumps({"input": ["a"] * 100_000})), 413)
    assert "100000 items and the limit is 50000" in error["message"]


@pytest.mark.parametrize("item", ["", None, -1, [], True, {}])
async def test_fifty_thousand_bad_items_are_named_in_short(client: httpx.AsyncClient, item: Any) -> None:
    _check_error(await _send(client, orjson.dumps({"input": [["a"], *[item] * 49_999]})))


async def test_ten_megabytes_of_words_are_too_long(client: httpx.AsyncClient) -> None:
    error = _check_error(await _send(client, orjson.dumps({"input": "word " * 2_000_000})))
    assert error["code"] == "context_length_exceeded"


async def test_a_word_of_ten_megabytes_is_a_text_like_any_other(client: httpx.AsyncClient) -> None:
    response = await _send(client, orjson.dumps({"input": "w" * 10_000_000}))
    assert response.json()["usage"]["prompt_tokens"] == 3


async def test_two_million_ids_are_too_long(client: httpx.AsyncClient) -> None:
    error = _check_error(await _send(client, orjson.dumps({"input": [5] * 2_000_000})))
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (2_000_000, 512)


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "\u202e", "\ufeff", "\U0010ffff", "a\r\nb", "[CLS]", "{document}"])
async def test_odd_characters_are_text(client: httpx.AsyncClient, text: str) -> None:
    assert (await _send(client, orjson.dumps({"input": text}))).status_code == 200


async def test_the_last_of_two_equal_fields_counts(client: httpx.AsyncClient) -> None:
    response = await _send(client, b'{"input":"a","pooling":"cls","pooling":"last"}')
    assert response.json()["pooling"] == "last"


async def test_a_hundred_thousand_unknown_fields_are_ignored_in_short(client: httpx.AsyncClient) -> None:
    response = await _send(client, orjson.dumps({"input": "a", **{f"field{n}": n for n in range(100_000)}}))
    assert response.status_code == 200
    assert len(response.headers["x-poolhouse-ignored-fields"]) < 1_000


async def test_field_names_cannot_add_headers(client: httpx.AsyncClient) -> None:
    response = await _send(client, orjson.dumps({"input": "a", "x\r\nset-cookie: a=b": 1}))
    assert response.status_code == 200
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    ("item", "part"),
    [
        (None, "is null"),
        ("", "is an empty string"),
        ([1.5], "has the number 1.5"),
        ({}, "is an object without a text"),
        ([99_999_999], "token id 99999999 is outside"),
    ],
    ids=["null", "empty", "no id", "no text", "outside the vocabulary"],
)
async def test_fifty_thousand_bad_items_are_all_counted_and_the_first_are_named(
    client: httpx.AsyncClient, item: Any, part: str
) -> None:
    error = _check_error(await _send(client, orjson.dumps({"input": ["good", *[item] * 49_999]})))
    assert error["message"].startswith("49999 of 50000 items ")
    assert error["message"].count(part) == 16
    assert error["param"] == ", ".join(f"input[{index}]" for index in range(1, 17)) + " and 49983 more"

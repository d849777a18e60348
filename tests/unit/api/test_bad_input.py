"""Whatever a client sends: a clear 4xx in less than two seconds, and the next good request is answered as before."""

from __future__ import annotations

import time
from typing import Any

import httpx
import orjson
import pytest

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


NOT_JSON = {
    "NaN": b'{"input":NaN}',
    "infinite": b'{"input":[1e400]}',
    "minus infinite": b'{"embd_normalize":-1e400,"input":"a"}',
    "10,000 nested lists": b'{"input":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "10,000 open brackets": b"[" * 10_000,
    "10,000 nested objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "invalid UTF-8": b'{"input":"\xff\xfe"}',
    "overlong UTF-8": b'{"input":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"input":"\xed\xa0\x80"}',
    "lone high surrogate": rb'{"input":"\ud800"}',
    "lone low surrogate": rb'{"input":"a \udc00 b"}',
    "lone surrogate in a name": rb'{"\ud800":1,"input":"a"}',
    "raw NUL": b'{"input":"a\x00b"}',
    "NUL bytes": b"\x00" * 100,
    "byte order mark": b'\xef\xbb\xbf{"input":"a"}',
    "truncated": b'{"input":["The capital of Chi',
    "trailing comma": b'{"input":"a",}',
    "two objects": b'{"input":"a"}{"input":"b"}',
    "white space": b"   ",
    "empty": b"",
    "form": b"input=a",
}

NO_OBJECT = {"list": b'["a"]', "string": b'"a"', "number": b"3", "null": b"null", "boolean": b"true"}

BAD_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("no input", {}, "input"),
    ("null input", {"input": None}, "input"),
    ("empty list", {"input": []}, "input"),
    ("empty string", {"input": ""}, "input"),
    ("empty string in a list", {"input": ["a", ""]}, "input[1]"),
    ("list of an empty list", {"input": [[]]}, "input[0]"),
    ("boolean input", {"input": True}, "input"),
    ("number input", {"input": 3}, "input"),
    ("object input", {"input": {"a": 1}}, "input"),
    ("boolean among ids", {"input": [5, True]}, "input"),
    ("null among ids", {"input": [5, None]}, "input"),
    ("fraction among ids", {"input": [5, 6.5]}, "input"),
    ("10**30 among ids", {"input": [5, 1e30]}, "input"),
    ("2**31 among ids", {"input": [5, 2**31]}, "input"),
    ("2**63 among ids", {"input": [5, 2**63]}, "input"),
    ("2**64 - 1 among ids", {"input": [5, 2**64 - 1]}, "input"),
    ("-2**63 among ids", {"input": [5, -(2**63)]}, "input"),
    ("negative id", {"input": [-1]}, "input"),
    ("negative id in a list", {"input": [[5], [-1]]}, "input[1]"),
    ("id outside the vocabulary", {"input": [50_000]}, "input"),
    ("largest int32", {"input": [2**31 - 1]}, "input"),
    ("id outside the vocabulary in a list of one", {"input": [[50_000]]}, "input[0]"),
    ("id outside the vocabulary in a list of two", {"input": ["a", [50_000]]}, "input[1]"),
    ("a list of one text that is too long", {"input": ["word " * 600]}, "input[0]"),
    ("a text that is too long", {"input": "word " * 600}, "input"),
    ("id outside the vocabulary in a mixed prompt", {"input": ["a", 50_000]}, "input"),
    ("three levels", {"input": [[[5]]]}, "input[0]"),
    ("number as model", {"input": "a", "model": 3}, "model"),
    ("list as model", {"input": "a", "model": ["fake"]}, "model"),
    ("unknown pooling", {"input": "a", "pooling": "max"}, "pooling"),
    ("number as pooling", {"input": "a", "pooling": 1}, "pooling"),
    ("upper-case pooling", {"input": "a", "pooling": "MEAN"}, "pooling"),
    ("unknown encoding_format", {"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ("raw encoding_format", {"input": "a", "encoding_format": "raw"}, "encoding_format"),
    ("unknown output_dtype", {"input": "a", "output_dtype": "float16"}, "output_dtype"),
    ("dimensions 0", {"input": "a", "dimensions": 0}, "dimensions"),
    ("negative dimensions", {"input": "a", "dimensions": -1}, "dimensions"),
    ("too many dimensions", {"input": "a", "dimensions": 17}, "dimensions"),
    ("2**31 - 1 dimensions", {"input": "a", "dimensions": 2**31 - 1}, "dimensions"),
    ("2**63 dimensions", {"input": "a", "dimensions": 2**63}, "dimensions"),
    ("10**30 dimensions", {"input": "a", "dimensions": 1e30}, "dimensions"),
    ("fraction as dimensions", {"input": "a", "dimensions": 8.0}, "dimensions"),
    ("boolean as dimensions", {"input": "a", "dimensions": True}, "dimensions"),
    ("string as dimensions", {"input": "a", "dimensions": "8"}, "dimensions"),
    ("string as embd_normalize", {"input": "a", "embd_normalize": "nan"}, "embd_normalize"),
    ("embd_normalize -2", {"input": "a", "embd_normalize": -2}, "embd_normalize"),
    ("embd_normalize -0.5", {"input": "a", "embd_normalize": -0.5}, "embd_normalize"),
    ("embd_normalize 1e-300", {"input": "a", "embd_normalize": 1e-300}, "embd_normalize"),
    ("embd_normalize 1e300", {"input": "a", "embd_normalize": 1e300}, "embd_normalize"),
    ("boolean as embd_normalize", {"input": "a", "embd_normalize": True}, "embd_normalize"),
    ("unknown truncate", {"input": "a", "truncate": "middle"}, "truncate"),
    ("number as truncate", {"input": "a", "truncate": 1}, "truncate"),
    ("unknown input_type", {"input": "a", "input_type": "nothing"}, "input_type"),
    ("list as prompt_name", {"input": "a", "prompt_name": ["query"]}, "prompt_name"),
    ("string as parse_special", {"input": "a", "parse_special": "yes"}, "parse_special"),
    ("unknown lane", {"input": "a", "lane": "express"}, "lane"),
    ("timeout 0", {"input": "a", "timeout_s": 0}, "timeout_s"),
    ("string as strict", {"input": "a", "strict": "true"}, "strict"),
    ("unknown field and strict", {"input": "a", "poling": "cls", "strict": True}, "poling"),
    ("10 MB as model", {"input": "a", "model": "m" * 10_000_000}, "model"),
    ("10 MB as pooling", {"input": "a", "pooling": "mean" * 2_500_000}, "pooling"),
    ("10 MB as input_type", {"input": "a", "input_type": "query" * 2_000_000}, "input_type"),
    ("10 MB as a strict unknown field", {"input": "a", "x" * 10_000_000: 1, "strict": True}, "x" * 60),
]


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

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from cluster.api.headers import answer_headers, ignored_fields_header
from cluster.calls import EmbedAnswer
from cluster.types import PoolingType


def _answer(cut_tokens: list[int]) -> EmbedAnswer:
    return EmbedAnswer(
        "minilm", PoolingType.CLS, "abc", [b"[1]", b"[2]"], [(1,), (1,)], [3, 4], cut_tokens, {"encode": 0.0123456}
    )


def test_an_answers_headers_name_what_made_it() -> None:
    assert answer_headers(_answer([0, 0])) == {
        "x-poolhouse-model": "minilm",
        "x-poolhouse-pooling": "cls",
        "x-poolhouse-fingerprint": "abc",
        "x-poolhouse-tokens": "7",
        "x-encode-time-ms": "12.35",
    }


def test_printed_parts_never_come_to_more_than_the_printed_total() -> None:
    parts = dict.fromkeys(("tokenize", "queue", "encode", "pool"), 0.000_005_1)
    answer = replace(_answer([0, 0]), timings_s={**parts, "total": sum(parts.values())})
    headers = {name: Decimal(value) for name, value in answer_headers(answer).items() if name.endswith("-time-ms")}
    total = headers.pop("x-total-time-ms")
    assert len(headers) == 4
    assert sum(headers.values()) <= total


def test_all_builds_that_took_part_are_named() -> None:
    answer = replace(_answer([0, 0]), builds=("llama-cpp-python/1 ggml/2", "llama-cpp-python/3 ggml/4"))
    assert answer_headers(answer)["x-poolhouse-build"] == "llama-cpp-python/1 ggml/2, llama-cpp-python/3 ggml/4"


def test_cut_tokens_are_summed_where_there_are_any() -> None:
    assert answer_headers(_answer([2, 5]))["x-poolhouse-truncated-tokens"] == "7"


def test_no_ignored_fields_no_header() -> None:
    assert ignored_fields_header([]) == {}


def test_ignored_fields_are_named() -> None:
    assert ignored_fields_header(["a", "b"]) == {"x-poolhouse-ignored-fields": "a,b"}


def test_names_that_no_header_may_hold_are_made_safe() -> None:
    value = ignored_fields_header(["a\r\nset-cookie: x", "ключ", "\x00", "\U0001f600" * 100])[
        "x-poolhouse-ignored-fields"
    ]
    assert value.isascii()
    assert value.isprintable()


def test_the_header_is_short_whatever_the_names() -> None:
    value = ignored_fields_header(["\U0001f600" * 1_000] * 1_000)["x-poolhouse-ignored-fields"]
    assert len(value) <= 16 * 61

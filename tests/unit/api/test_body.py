from __future__ import annotations

import time
from typing import Any

import pytest

from cluster.api.body import Fields, describe, read_json
from cluster.config import Limits
from cluster.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from cluster.types import PoolingType

LIMITS = Limits(max_body_bytes=1_000)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"],
)
def test_json_content_types_are_read(content_type: str | None) -> None:
    assert read_json(b'{"input":"a"}', content_type, LIMITS) == {"input": "a"}


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "xml"]
)
def test_other_content_types_are_refused_by_name(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=content_type) as raised:
        read_json(b"{}", content_type, LIMITS)
    assert raised.value.status == 415


@pytest.mark.parametrize("raw", [b"[]", b"null", b"3", b'"text"', b"true"])
def test_a_body_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="send a JSON object"):
        read_json(raw, None, LIMITS)


def test_an_empty_body_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        read_json(b"", None, LIMITS)


def test_a_body_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    raw = b'{"input":"a"}'
    assert read_json(raw, None, Limits(max_body_bytes=len(raw)))
    with pytest.raises(PayloadTooLarge, match="13 bytes and the limit is 12"):
        read_json(raw, None, Limits(max_body_bytes=len(raw) - 1))


def test_invalid_json_is_refused_with_its_position() -> None:
    with pytest.raises(InvalidRequest, match="at byte 9"):
        read_json(b'{"input":NaN}', None, LIMITS)


def test_the_last_of_two_equal_fields_counts() -> None:
    assert read_json(b'{"a":1,"a":2}', None, LIMITS) == {"a": 2}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (2.5, "the number 2.5"),
        ("a", "the string 'a'"),
        ("a" * 41, f"the string {'a' * 40!r}…"),
        ([1], "a list"),
        ({}, "an object"),
    ],
)
def test_values_are_named(value: Any, expected: str) -> None:
    assert describe(value) == expected


def test_a_name_is_short_whatever_the_value() -> None:
    assert all(len(describe(value)) < 450 for value in ("\U000e0001" * 10_000, 2**63, 1e300, ["a"] * 10_000))


class TestFields:
    def test_null_counts_as_absent(self) -> None:
        fields = Fields({"a": None})
        assert fields.text("a") is None
        assert fields.flag("a") is None
        assert fields.integer("a", 0) is None
        assert fields.number("a", 0, 1) is None
        assert fields.choice("a", PoolingType) is None

    def test_values_of_the_right_type_pass(self) -> None:
        fields = Fields({"text": "x", "flag": False, "integer": 3, "number": 2, "choice": "cls"})
        assert fields.text("text") == "x"
        assert fields.flag("flag") is False
        assert fields.integer("integer", 1) == 3
        assert fields.number("number", 0, 2) == 2.0
        assert fields.choice("choice", PoolingType) is PoolingType.CLS

    @pytest.mark.parametrize("value", [1, True, [], {}])
    def test_text_takes_strings_only(self, value: Any) -> None:
        with pytest.raises(InvalidRequest, match="send a string") as raised:
            Fields({"model": value}).text("model")
        assert raised.value.param == "model"

    @pytest.mark.parametrize("value", [1, 0, "true", []])
    def test_a_flag_takes_booleans_only(self, value: Any) -> None:
        with pytest.raises(InvalidRequest, match="true or false"):
            Fields({"f": value}).flag("f")

    @pytest.mark.parametrize("value", [True, 0, 11, 2**63, 5.0, 1e30, "5"])
    def test_an_integer_out_of_bounds_or_of_another_type_is_refused_with_the_bounds(self, value: Any) -> None:
        with pytest.raises(InvalidRequest, match="send an integer from 1 to 10"):
            Fields({"n": value}).integer("n", 1, 10)

    @pytest.mark.parametrize("value", [True, -1.5, 1001, float("nan"), float("inf"), 2**63, "2"])
    def test_a_number_out_of_bounds_or_of_another_type_is_refused(self, value: Any) -> None:
        with pytest.raises(InvalidRequest, match="send a number from -1 to 1000"):
            Fields({"n": value}).number("n", -1, 1000)

    def test_an_unknown_choice_names_the_valid_ones_and_the_nearest(self) -> None:
        with pytest.raises(
            InvalidRequest, match=r"did you mean 'mean'.*none, mean, cls, last, rank, weighted"
        ) as raised:
            Fields({"pooling": "maen"}).choice("pooling", PoolingType)
        assert raised.value.param == "pooling"

    def test_a_left_out_choice_is_neither_taken_nor_offered(self) -> None:
        fields = Fields({"pooling": "rank"})
        with pytest.raises(InvalidRequest) as raised:
            fields.choice("pooling", PoolingType, without=PoolingType.RANK)
        assert "rank" not in raised.value.message.partition("send one of")[2]

    @pytest.mark.parametrize("kind", ["text", "choice"])
    def test_a_name_of_megabytes_is_refused_at_once_and_not_repeated(self, kind: str) -> None:
        fields = Fields({"name": "ab" * 5_000_000})
        began_s = time.monotonic()
        with pytest.raises(InvalidRequest) as raised:
            fields.text("name") if kind == "text" else fields.choice("name", PoolingType)
        assert time.monotonic() - began_s < 0.5
        assert len(raised.value.message) < 300

    def test_unread_fields_are_unknown(self) -> None:
        fields = Fields({"a": 1, "b": 2, "c": 3, "strict": False})
        fields.raw("a")
        fields.ignore("b")
        assert fields.unknown() == ["c"]

    def test_strict_refuses_unknown_fields_and_names_the_nearest_known(self) -> None:
        fields = Fields({"poling": "mean", "strict": True})
        fields.raw("pooling")
        with pytest.raises(InvalidRequest, match=r"'poling' \(did you mean 'pooling'\?\)") as raised:
            fields.unknown()
        assert raised.value.param == "poling"

    def test_strict_passes_known_fields(self) -> None:
        fields = Fields({"pooling": "mean", "strict": True})
        fields.raw("pooling")
        assert fields.unknown() == []

    @pytest.mark.parametrize("value", ["true", 1, []])
    def test_strict_must_be_a_boolean(self, value: Any) -> None:
        with pytest.raises(InvalidRequest, match=r"strict is .*true or false"):
            Fields({"strict": value}).unknown()

from __future__ import annotations

from typing import Any

import pytest

from cluster.api.inputs import is_part, parse_inputs
from cluster.errors import InvalidRequest, PayloadTooLarge


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a text", ["a text"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([1, "a", 2], [[1, "a", 2]]),
        ([[1, 2], "a", [3, "b"]], [[1, 2], "a", [3, "b"]]),
        ({"prompt_string": "a"}, ["a"]),
        ([{"prompt_string": "a"}, "b"], ["a", "b"]),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ["ab"]),
        ([{"type": "text", "text": "a"}], ["a"]),
        ({"content": "a"}, ["a"]),
        ({"prompt_string": "a", "multimodal_data": []}, ["a"]),
        (
            ["a", [1, 2], {"prompt_string": "b"}, {"content": [{"text": "c"}]}, [3, "d"]],
            ["a", [1, 2], "b", "c", [3, "d"]],
        ),
        ([0], [[0]]),
        ([0, ""], [[0, ""]]),
        (["", 7], [["", 7]]),
        ([2**31 - 1], [[2**31 - 1]]),
    ],
)
def test_every_form_becomes_one_entry_for_each_sequence(value: Any, expected: list[Any]) -> None:
    assert parse_inputs(value, "input", 10) == expected


@pytest.mark.parametrize(
    ("value", "param", "part"),
    [
        (None, "input", "missing"),
        ([], "input", "empty list"),
        ("", "input", "empty string"),
        (3, "input", "the number 3"),
        (2.5, "input", "2.5"),
        (True, "input", "true"),
        ({}, "input", "an object without a text"),
        ({"prompt_string": ""}, "input", "empty string"),
        ({"prompt_string": 3}, "input", "an object without a text"),
        ({"content": [{"type": "image_url", "image_url": "x"}]}, "input", "an object without a text"),
        ({"content": []}, "input", "an object without a text"),
        ({"content": [{"type": "image_url", "image_url": "x"}]}, "input", "content[0] is of type 'image_url'"),
        (
            ["a", {"content": [{"text": "b"}, {"type": "input_audio"}]}],
            "input[1]",
            "content[1] is of type 'input_audio'",
        ),
        ({"prompt_string": "a", "multimodal_data": ["aGk="]}, "input", "multimodal_data"),
        (["a", {"content": [{"type": "text"}]}], "input[1]", "an object without a text"),
        ([-1], "input", "-1"),
        ([1, 2.5], "input", "2.5"),
        ([1, True], "input", "true"),
        ([1, None], "input", "null"),
        ([1, 1e30], "input", "1e+30"),
        ([2**31], "input", "2147483648"),
        ([2**63], "input", "9223372036854775808"),
        (["a", ""], "input[1]", "empty string"),
        (["a", None], "input[1]", "null"),
        (["a", True], "input[1]", "true"),
        ([[1], []], "input[1]", "empty list"),
        ([[1], [-5]], "input[1]", "-5"),
        ([[1], ["a", 2.5]], "input[1]", "2.5"),
        ([["", ""]], "input[0]", "empty strings only"),
        ([[[1]]], "input[0]", "a list"),
        ([["a"], 3], "input[1]", "the number 3"),
    ],
)
def test_bad_forms_are_refused_where_they_stand(value: Any, param: str, part: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_inputs(value, "input", 10)
    assert raised.value.param == param
    assert part in raised.value.message
    assert raised.value.message.startswith(param)


def test_all_bad_items_are_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_inputs(["good", "", ["a", -1], "good", None], "content", 10)
    assert raised.value.param == "content[1], content[2], content[4]"
    assert raised.value.message.startswith("3 of 5 items are bad: content[1] is an empty string")


def test_more_bad_items_than_fit_are_counted() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_inputs([""] * 40, "input", 100)
    assert raised.value.param is not None
    assert raised.value.param.endswith("input[15] and 24 more")


def test_items_are_limited() -> None:
    assert len(parse_inputs(["a"] * 10, "input", 10)) == 10
    with pytest.raises(PayloadTooLarge, match="11 items and the limit is 10") as raised:
        parse_inputs(["a"] * 11, "input", 10)
    assert raised.value.status == 413


def test_the_ids_of_one_sequence_are_no_items() -> None:
    assert parse_inputs([1] * 11, "input", 10) == [[1] * 11]


@pytest.mark.parametrize("value", [True, -1, 2**31, 1.0, None, [1], {}])
def test_other_values_are_no_part_of_a_mixed_prompt(value: Any) -> None:
    assert not is_part(value)

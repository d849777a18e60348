from __future__ import annotations

import pytest

from cluster.errors import DeadlineExceeded, EngineError, InputTooLong, InvalidRequest, PoolhouseError
from cluster.item_errors import raise_item_errors

TOO_LONG = InputTooLong("the input is too long", n_prompt_tokens=9, n_ctx=4)


def _raised(errors: dict[int, PoolhouseError], items: int, *, listed: bool = True) -> PoolhouseError:
    with pytest.raises(PoolhouseError) as caught:
        raise_item_errors(errors, "input", items, listed=listed)
    return caught.value


def test_no_bad_item_is_no_error() -> None:
    raise_item_errors({}, "input", 3)


@pytest.mark.parametrize(
    ("item", "items", "listed", "param"),
    [(0, 1, False, "input"), (0, 1, True, "input[0]"), (0, 2, True, "input[0]"), (17, 20, True, "input[17]")],
)
def test_one_bad_item_is_named_where_it_stands(item: int, items: int, listed: bool, param: str) -> None:
    error = _raised({item: TOO_LONG}, items, listed=listed)
    assert type(error) is InputTooLong
    assert (error.message, error.param, error.extra) == (TOO_LONG.message, param, TOO_LONG.extra)


def test_all_bad_items_are_named_at_once_in_their_order() -> None:
    error = _raised({5: InvalidRequest("worse"), 2: InvalidRequest("bad")}, 9)
    assert type(error) is InvalidRequest
    assert error.message == "2 of 9 items cannot be served: input[2]: bad; input[5]: worse"
    assert error.param == "input[2], input[5]"


def test_more_bad_items_than_fit_are_counted() -> None:
    error = _raised(dict.fromkeys(range(100), TOO_LONG), 100)
    assert error.message.endswith("input[15]: the input is too long and 84 more")
    assert error.param is not None
    assert error.param.endswith("input[15] and 84 more")


def test_a_fault_of_the_server_outweighs_one_of_the_client() -> None:
    kinds: dict[int, PoolhouseError] = {0: TOO_LONG, 1: EngineError("failed"), 2: DeadlineExceeded("late")}
    assert type(_raised(kinds, 3)) is DeadlineExceeded

from __future__ import annotations

import inspect

import httpx
import pytest

import cluster.errors
from cluster.api.errors import error_body
from cluster.client import UnexpectedAnswer
from cluster.client.errors import ServerUnreachable, error_of, faulty_items, relocate
from cluster.errors import (
    DeadlineExceeded,
    InputTooLong,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    PoolhouseError,
    RequestTimeout,
)

SERVER_ERRORS = [
    kind
    for _, kind in inspect.getmembers(cluster.errors, inspect.isclass)
    if issubclass(kind, PoolhouseError) and kind.__module__ == "cluster.errors"
]


def _answer(status: int, **options: object) -> httpx.Response:
    request = httpx.Request("POST", "http://host/v1/embeddings", headers={"x-request-id": "abc"})
    return httpx.Response(status, request=request, **options)  # type: ignore[arg-type]


class TestErrorOf:
    @pytest.mark.parametrize("kind", SERVER_ERRORS, ids=lambda kind: kind.__name__)
    def test_every_error_of_the_server_comes_back_as_itself(self, kind: type[PoolhouseError]) -> None:
        sent = kind("what was wrong", "input[3]", n_ctx=512, retry_after_s=1.5)
        status, body, headers = error_body(sent)
        error = error_of(_answer(status, content=body, headers=headers))
        assert type(error) is kind
        assert (error.message, error.param) == ("what was wrong", "input[3]")
        assert error.extra == {"n_ctx": 512, "retry_after_s": 1.5, "request_id": "abc"}

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, InvalidRequest),
            (404, NotFound),
            (408, RequestTimeout),
            (413, PayloadTooLarge),
            (418, InvalidRequest),
            (429, Overloaded),
            (500, PoolhouseError),
            (502, ServerUnreachable),
            (503, NotReady),
            (504, DeadlineExceeded),
        ],
    )
    @pytest.mark.parametrize(
        "content", [b"", b"<html>no</html>", b"[]", b'{"error":"no"}', b'{"error":{"code":400}}', b"\xff{", b"null"]
    )
    def test_another_servers_error_goes_by_its_status(
        self, status: int, kind: type[PoolhouseError], content: bytes
    ) -> None:
        error = error_of(_answer(status, content=content))
        assert type(error) is kind
        assert f"http://host/v1/embeddings answered {status}" in error.message
        assert error.extra["status"] == status

    def test_another_servers_message_is_shown_in_short(self) -> None:
        assert "model not loaded" in error_of(_answer(400, json={"error": {"message": "model not loaded"}})).message
        assert len(error_of(_answer(500, content=b"x" * 10_000)).message) < 400

    def test_a_redirection_says_where_to(self) -> None:
        error = error_of(_answer(308, headers={"location": "https://host/v1/embeddings"}))
        assert type(error) is UnexpectedAnswer
        assert "https://host/v1/embeddings; use that as base_url" in error.message

    def test_members_named_like_arguments_do_no_harm(self) -> None:
        body = {"error": {"code": "model_not_found", "message": "no", "self": 1, "cls": 2, "args": 3}}
        error = error_of(_answer(404, json=body))
        assert type(error) is ModelNotFound
        assert error.extra["self"] == 1


class TestFaultyItems:
    @pytest.mark.parametrize(
        ("param", "items", "expected"),
        [
            ("input[3]", 8, [3]),
            ("input[3], input[17]", 20, [3, 17]),
            ("input[17], input[3], input[3] and 4 more", 20, [3, 17]),
            ("input[3][5]", 8, [3]),
            ("input[8]", 8, []),
            ("myinput[3]", 8, []),
            ("input", 8, []),
            ("input", 1, [0]),
            ("dimensions", 1, []),
            (None, 1, []),
        ],
    )
    def test_they_are_read_from_param(self, param: str | None, items: int, expected: list[int]) -> None:
        assert faulty_items(InvalidRequest("bad", param), "input", items) == expected


def test_relocating_keeps_the_class_and_the_numbers() -> None:
    error = InputTooLong(
        "2 of 3 items: input[0]: long; input[2]: long; input[9] is odd", "input[0], input[2]", n_ctx=16
    )
    located = relocate(error, "input", [100, 205, 300], [0, 2])
    assert type(located) is InputTooLong
    assert located.message == "2 of 3 items: input[100]: long; input[300]: long; input[9] is odd"
    assert located.param == "input[100], input[300]"
    assert located.extra == {"n_ctx": 16, "items": [100, 300]}

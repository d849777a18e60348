from __future__ import annotations

import orjson
import pytest

from cluster.api.errors import error_body, unexpected_body
from cluster.errors import InputTooLong, InvalidRequest, ModelNotFound, NotReady, Overloaded, Unauthorized


def test_an_error_has_openais_four_members() -> None:
    status, content, headers = error_body(ModelNotFound("there is no model 'x'", "model"))
    assert status == 404
    assert headers == {}
    assert orjson.loads(content) == {
        "error": {
            "message": "there is no model 'x'",
            "type": "not_found_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_numbers_that_a_program_may_read_are_members() -> None:
    _, content, _ = error_body(InputTooLong("too long", "input", n_prompt_tokens=600, n_ctx=512))
    error = orjson.loads(content)["error"]
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (600, 512)


@pytest.mark.parametrize(("seconds", "header"), [(1, "1"), (0.2, "1"), (2.5, "3")])
def test_retry_after_is_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    for error in (Overloaded("busy", retry_after_s=seconds), NotReady("starting", retry_after_s=seconds)):
        assert error_body(error)[2] == {"retry-after": header}


def test_an_unauthorized_answer_names_the_scheme() -> None:
    status, _, headers = error_body(Unauthorized("the API key is missing"))
    assert (status, headers) == (401, {"www-authenticate": "Bearer"})


def test_text_without_utf8_form_is_printable() -> None:
    _, content, _ = error_body(InvalidRequest("bad \ud800 text"))
    assert orjson.loads(content)["error"]["message"] == "bad ? text"


def test_an_unexpected_error_names_the_request_and_nothing_else() -> None:
    error = orjson.loads(unexpected_body("request-7"))["error"]
    assert error["code"] == "internal_error"
    assert error["type"] == "server_error"
    assert "request-7" in error["message"]

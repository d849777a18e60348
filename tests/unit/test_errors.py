from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from cluster import errors
from cluster.errors import InputTooLong, InvalidRequest, NotFound, PoolhouseError, nearest

_STATUS = {
    "PoolhouseError": (500, "server_error", "internal_error"),
    "ConfigError": (500, "server_error", "invalid_config"),
    "ModelLoadError": (500, "server_error", "model_load_failed"),
    "EngineError": (500, "server_error", "engine_error"),
    "ReplicaLost": (503, "unavailable_error", "replica_lost"),
    "CallFailed": (503, "unavailable_error", "call_failed"),
    "VersionChanged": (503, "unavailable_error", "version_changed"),
    "InvalidRequest": (400, "invalid_request_error", "invalid_request"),
    "EmptyInput": (400, "invalid_request_error", "empty_input"),
    "InputTooLong": (400, "invalid_request_error", "context_length_exceeded"),
    "PoolingUnavailable": (400, "invalid_request_error", "pooling_not_available"),
    "PoisonousInput": (422, "invalid_request_error", "poisonous_input"),
    "MethodNotAllowed": (405, "invalid_request_error", "method_not_allowed"),
    "RequestTimeout": (408, "invalid_request_error", "request_timeout"),
    "PayloadTooLarge": (413, "invalid_request_error", "payload_too_large"),
    "MessageTooLarge": (413, "invalid_request_error", "message_too_large"),
    "UnsupportedMediaType": (415, "invalid_request_error", "unsupported_media_type"),
    "Unauthorized": (401, "authentication_error", "invalid_api_key"),
    "PermissionDenied": (403, "permission_error", "permission_denied"),
    "NotFound": (404, "not_found_error", "not_found"),
    "ModelNotFound": (404, "not_found_error", "model_not_found"),
    "Overloaded": (429, "rate_limit_error", "overloaded"),
    "NotReady": (503, "unavailable_error", "not_ready"),
    "DeadlineExceeded": (504, "timeout_error", "deadline_exceeded"),
}


def _classes() -> list[type[PoolhouseError]]:
    members = vars(errors).values()
    return [member for member in members if inspect.isclass(member) and issubclass(member, PoolhouseError)]


def test_every_error_has_the_status_that_the_tree_shows() -> None:
    assert {each.__name__: (each.status, each.type, each.code) for each in _classes()} == _STATUS


def test_docstring_draws_every_error_with_its_status() -> None:
    drawn = {
        words[0]: words[1]
        for line in str(errors.__doc__).splitlines()
        if len(words := line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()) > 1
    }
    assert {name: str(status) for name, (status, _, _) in _STATUS.items()}.items() <= drawn.items()


def test_every_error_is_exported() -> None:
    assert set(errors.__all__) == {each.__name__ for each in _classes()} | {"nearest"}
    assert errors.__all__ == sorted(errors.__all__)


def test_codes_are_distinct() -> None:
    codes = [each.code for each in _classes()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", _classes())
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_error_survives_a_process_boundary(kind: type[PoolhouseError], protocol: int) -> None:
    error = kind("too long", "input[3]", tokens=600, limit=512)
    arrived = pickle.loads(pickle.dumps(error, protocol))
    assert type(arrived) is kind
    assert arrived.message == str(arrived) == "too long"
    assert arrived.param == "input[3]"
    assert arrived.extra == {"tokens": 600, "limit": 512}
    assert arrived.status == kind.status


def test_error_without_param_and_extra_survives_too() -> None:
    arrived = copy.deepcopy(NotFound("no such path"))
    assert (arrived.message, arrived.param, arrived.extra) == ("no such path", None, {})


def test_copies_do_not_share_extra() -> None:
    error = InputTooLong("too long", tokens=600)
    arrived = pickle.loads(pickle.dumps(error))
    arrived.extra["tokens"] = 1
    assert error.extra == {"tokens": 600}


def test_narrow_errors_are_caught_as_wide_ones() -> None:
    with pytest.raises(InvalidRequest):
        raise InputTooLong("too long")


@pytest.mark.parametrize(
    ("name", "valid", "expected"),
    [
        ("pooling_typ", ["pooling_type", "model"], " (did you mean 'pooling_type'?)"),
        ("modle", ["model", "module_of_another"], " (did you mean 'model'?)"),
        ("xyz", ["pooling", "model"], ""),
        ("model", [], ""),
        ("", ["model"], ""),
    ],
)
def test_nearest_offers_the_closest_or_nothing(name: str, valid: list[str], expected: str) -> None:
    assert nearest(name, valid) == expected


def test_nearest_takes_any_iterable() -> None:
    assert nearest("mean", {"mean_": 1}) == " (did you mean 'mean_'?)"
    assert nearest("mean", iter(["mean_"])) == " (did you mean 'mean_'?)"

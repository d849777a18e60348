"""One tree of errors; each knows its HTTP status and says what was wrong, what was expected and what to do.

    PoolhouseError                 500 server_error
    ├── ConfigError                500 the YAML or the model cannot be served (raised at start-up)
    ├── ModelLoadError             500 a model's file is missing, broken or unsupported
    ├── EngineError                500 llama.cpp refused or failed a call
    ├── ReplicaLost                503 a replica died while it held the work
    ├── CallFailed                 503 a call between parts of the server failed and nothing says why
    ├── VersionChanged             503 work was prepared for another version of the model than the one it reached
    ├── InvalidRequest             400 the request is malformed
    │   ├── EmptyInput             400 there is nothing to work on
    │   ├── InputTooLong           400 more tokens than the model takes; carries both lengths
    │   ├── PoolingUnavailable     400 the model does not answer this pooling type
    │   ├── PoisonousInput         422 an input that has killed an encoder before
    │   ├── MethodNotAllowed       405
    │   ├── RequestTimeout         408 the body came too slowly
    │   ├── PayloadTooLarge        413 a limit of a body, a text, the items, the tokens or the answer
    │   │   └── MessageTooLarge    413 an input or its answer is more than parts of the server can send each other
    │   └── UnsupportedMediaType   415
    ├── Unauthorized               401
    ├── PermissionDenied           403
    ├── NotFound                   404
    │   └── ModelNotFound          404 names the models that exist
    ├── Overloaded                 429 with Retry-After
    ├── NotReady                   503 with Retry-After
    └── DeadlineExceeded           504 the request's own deadline passed

Wire dialects translate this tree into their own error bodies in ``cluster/api``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "CallFailed",
    "ConfigError",
    "DeadlineExceeded",
    "EmptyInput",
    "EngineError",
    "InputTooLong",
    "InvalidRequest",
    "MessageTooLarge",
    "MethodNotAllowed",
    "ModelLoadError",
    "ModelNotFound",
    "NotFound",
    "NotReady",
    "Overloaded",
    "PayloadTooLarge",
    "PermissionDenied",
    "PoisonousInput",
    "PoolhouseError",
    "PoolingUnavailable",
    "ReplicaLost",
    "RequestTimeout",
    "Unauthorized",
    "UnsupportedMediaType",
    "VersionChanged",
    "nearest",
]


class PoolhouseError(Exception):
    """Base of all errors a client or an operator can see.

    Attributes:
        message: one sentence: what was wrong, what was expected, what to do.
        param: the request field or items at fault (``input[17]``), or None.
        extra: further members of the error body (numbers that a program may read).
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, param: str | None = None, **extra: object) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.extra: dict[str, object] = extra

    def __reduce__(self) -> tuple[object, ...]:
        """Keep ``param`` and ``extra`` when the error crosses a process boundary."""
        return _rebuild, (self.__class__, self.message, self.param, self.extra)


def _rebuild(cls: type[PoolhouseError], message: str, param: str | None, extra: dict[str, object]) -> PoolhouseError:
    return cls(message, param, **extra)


class ConfigError(PoolhouseError):
    """The configuration cannot be served."""

    code = "invalid_config"


class ModelLoadError(PoolhouseError):
    """A model's file is missing, broken or of an unsupported kind."""

    code = "model_load_failed"


class EngineError(PoolhouseError):
    """The engine refused or failed a call."""

    code = "engine_error"


class ReplicaLost(PoolhouseError):
    """A replica died while it held the work; the work may be repeated."""

    status = 503
    type = "unavailable_error"
    code = "replica_lost"


class CallFailed(PoolhouseError):
    """A call between parts of the server failed, and nothing says whose fault it is; the work may be repeated."""

    status = 503
    type = "unavailable_error"
    code = "call_failed"


class VersionChanged(PoolhouseError):
    """Work was prepared for another version of the model than the one it reached; it must be prepared again."""

    status = 503
    type = "unavailable_error"
    code = "version_changed"


class InvalidRequest(PoolhouseError):
    """The request is malformed."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class EmptyInput(InvalidRequest):
    """There is nothing to work on: an empty list or text."""

    code = "empty_input"


class InputTooLong(InvalidRequest):
    """An input has more tokens than the model takes and truncation was not asked for."""

    code = "context_length_exceeded"


class PoolingUnavailable(InvalidRequest):
    """The model does not answer the pooling type asked for."""

    code = "pooling_not_available"


class PoisonousInput(InvalidRequest):
    """An input that has killed an encoder."""

    status = 422
    code = "poisonous_input"


class MethodNotAllowed(InvalidRequest):
    """The path exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(InvalidRequest):
    """The body did not come in time; its connection is closed."""

    status = 408
    code = "request_timeout"


class PayloadTooLarge(InvalidRequest):
    """The body, the number of items or the number of tokens is over a configured limit."""

    status = 413
    code = "payload_too_large"


class MessageTooLarge(PayloadTooLarge):
    """A message between parts of the server, or its answer, is above what they can send each other."""

    code = "message_too_large"


class UnsupportedMediaType(InvalidRequest):
    """The body's content type is not one that this path reads."""

    status = 415
    code = "unsupported_media_type"


class Unauthorized(PoolhouseError):
    """The API key is missing or unknown."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class PermissionDenied(PoolhouseError):
    """The API key may not do this."""

    status = 403
    type = "permission_error"
    code = "permission_denied"


class NotFound(PoolhouseError):
    """No such path."""

    status = 404
    type = "not_found_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """No such model."""

    code = "model_not_found"


class Overloaded(PoolhouseError):
    """The work cannot be served in time; ``extra['retry_after_s']`` says when to come back."""

    status = 429
    type = "rate_limit_error"
    code = "overloaded"


class NotReady(PoolhouseError):
    """A part is still starting; ``extra['retry_after_s']`` says when to come back."""

    status = 503
    type = "unavailable_error"
    code = "not_ready"


class DeadlineExceeded(PoolhouseError):
    """The request's own deadline passed before the answer was there."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest of ``valid``, or an empty string."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""

"""The exceptions that Ray, Serve and gRPC raise, made as they make them."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ObjectStoreFullError,
    OutOfMemoryError,
    RayTaskError,
    TaskCancelledError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    RequestCancelledError,
)

from cluster.errors import EngineError, ReplicaLost
from cluster.failures import Cause
from deployments.causes import CALL_FAILURES, cause_of

_CODES = {
    grpc.StatusCode.UNAVAILABLE: Cause.REPLICA_LOST,
    grpc.StatusCode.CANCELLED: Cause.GIVEN_UP,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Cause.MESSAGE_TOO_LARGE,
}


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_a_status_of_grpc_is_told_by_its_code(code: grpc.StatusCode) -> None:
    # The text of each speaks of another one.
    error = AioRpcError(code, Metadata(), Metadata(), "UNAVAILABLE: the message is larger than max, RESOURCE_EXHAUSTED")
    assert cause_of(error) is _CODES.get(code, Cause.UNEXPLAINED)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ActorDiedError(), Cause.REPLICA_LOST),
        (ActorUnavailableError("the connection broke", None), Cause.REPLICA_LOST),
        (OutOfMemoryError("the worker was ended"), Cause.REPLICA_LOST),
        (RequestCancelledError("r"), Cause.GIVEN_UP),
        (TaskCancelledError(), Cause.GIVEN_UP),
        (asyncio.CancelledError(), Cause.GIVEN_UP),
        (ObjectStoreFullError("no room"), Cause.MESSAGE_TOO_LARGE),
        (BackPressureError(1, 1), Cause.BUSY),
        (DeploymentUnavailableError("d"), Cause.NOT_DEPLOYED),
        (EngineError("failed"), Cause.STAGE_ERROR),
        (ReplicaLost("the encoder has lost a thread"), Cause.ENCODER_LOST),
        (RayTaskError("encode", "traceback", ReplicaLost("lost")).as_instanceof_cause(), Cause.ENCODER_LOST),
        (RayServeException("something"), Cause.UNEXPLAINED),
        (RuntimeError("Unexpected error (StatusCode.UNAVAILABLE)"), Cause.UNEXPLAINED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.name,
)
def test_an_exception_is_told_by_its_type(error: BaseException, cause: Cause) -> None:
    assert cause_of(error) is cause


@pytest.mark.parametrize(
    "raised", [MemoryError("out"), ActorUnavailableError("of a call of its own", None), ValueError("v")]
)
def test_what_the_stage_s_code_raises_is_its_own_error_whatever_its_type(raised: Exception) -> None:
    wrapped = RayTaskError("encode", "traceback", raised)
    assert cause_of(wrapped) is Cause.STAGE_ERROR
    assert cause_of(wrapped.as_instanceof_cause()) is Cause.STAGE_ERROR
    assert isinstance(wrapped, CALL_FAILURES)

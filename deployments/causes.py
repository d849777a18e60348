"""Exceptions of Ray, Serve and gRPC → causes: by type and by status code, never by text."""

from __future__ import annotations

import asyncio

import grpc
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
)

from cluster.errors import PoolhouseError, ReplicaLost
from cluster.failures import Cause

CALL_FAILURES: tuple[type[Exception], ...] = (RayError, RayServeException, grpc.RpcError)
"""What a call to another deployment raises where it is not an error of this project's own tree."""

# In order: a RayTaskError comes before what Ray itself raises, since Ray makes one that is a subclass of the stage's own error
# too. Before it comes a stage that says that it is lost.
_BY_TYPE: tuple[tuple[tuple[type[BaseException], ...], Cause], ...] = (
    ((ReplicaLost,), Cause.ENCODER_LOST),
    ((RayTaskError, PoolhouseError), Cause.STAGE_ERROR),
    ((BackPressureError,), Cause.BUSY),
    ((DeploymentUnavailableError,), Cause.NOT_DEPLOYED),
    # What the object store has no room for, where messages go through it.
    ((ObjectStoreFullError, OutOfDiskError), Cause.MESSAGE_TOO_LARGE),
    (
        (RayActorError, NodeDiedError, WorkerCrashedError, OutOfMemoryError, ObjectLostError, ReplicaUnavailableError),
        Cause.REPLICA_LOST,
    ),
    # RequestCancelledError of Serve is a TaskCancelledError.
    ((TaskCancelledError, asyncio.CancelledError), Cause.GIVEN_UP),
)

_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: Cause.REPLICA_LOST,
    grpc.StatusCode.CANCELLED: Cause.GIVEN_UP,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Cause.MESSAGE_TOO_LARGE,
}


def cause_of(error: BaseException) -> Cause:
    """Return what a failed call to another deployment means.

    Every error of a stage's code arrives as a RayTaskError; what is none, and is in neither table, says nothing of the replica.
    """
    if isinstance(error, grpc.RpcError):
        return _BY_CODE.get(error.code(), Cause.UNEXPLAINED)
    for types, cause in _BY_TYPE:
        if isinstance(error, types):
            return cause
    return Cause.UNEXPLAINED

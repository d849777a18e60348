"""Calls to other deployments that outlive the replica they went to.

Every stage is idempotent, so a message whose replica died or hangs is sent again to another one, within its deadline. The
caller of the message sees an error only when several replicas in a row are lost with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import grpc
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import RayServeException, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from cluster.errors import DeadlineExceeded, PoolhouseError, ReplicaLost
from cluster.telemetry.metrics import RETRIES
from deployments.placements import answers, placements

logger = logging.getLogger("poolhouse")

Message = TypeVar("Message")
Answer = TypeVar("Answer")

# What Serve and gRPC raise for a replica that died or was stopped while it held the message.
_LOST: tuple[type[BaseException], ...] = (
    RayActorError,
    RayServeException,
    TaskCancelledError,
    RequestCancelledError,
    grpc.aio.AioRpcError,
)

# With a probe of half a second, a hung replica is known after 1.2 s: another one answers within two.
_FIRST_LOOK_S = 0.7
_NEXT_LOOK_S = 1.0

# A replica that answers probes but not the message may be stuck inside the engine; health checks replace it in time, and
# meanwhile the message goes elsewhere too. Far above what a full message takes on a slow machine.
_STUCK_S = 120.0


class Carrier(Generic[Message, Answer]):
    """Carries messages to one method of a deployment.

    Args:
        limit_s: seconds that a message has, from its requests; None is no limit.
        isolate: takes a message that two replicas have died with; None sends it on to others.
        most_losses: after so many lost replicas the message is given up.
    """

    def __init__(
        self,
        handle: DeploymentHandle,
        method: str,
        limit_s: Callable[[Message], float | None],
        isolate: Callable[[Message], Awaitable[Answer]] | None = None,
        most_losses: int = 4,
    ) -> None:
        # Made once: each look-up of a method makes a new handle.
        self._bound = getattr(handle, method)
        self._method = method
        self._limit_s = limit_s
        self._isolate = isolate
        self._most_losses = most_losses

    async def send(self, message: Message) -> Answer:
        """Return the deployment's answer.

        Raises:
            ReplicaLost: too many replicas were lost with the message.
            DeadlineExceeded: none has answered in time.
            PoolhouseError: what the stage itself says of the message.
        """
        limit_s = self._limit_s(message)
        until_s = None if limit_s is None else time.monotonic() + limit_s
        replicas = placements.follow(message)
        attempts = {self._begin(message)}
        look_s, stuck_at_s = _FIRST_LOOK_S, time.monotonic() + _STUCK_S
        losses = deaths = judged = 0
        try:
            while True:
                if until_s is not None:
                    look_s = min(look_s, max(0.0, until_s - time.monotonic()))
                ended, _ = await asyncio.wait(attempts, timeout=look_s, return_when=asyncio.FIRST_COMPLETED)
                for attempt in ended:
                    attempts.remove(attempt)
                    error = _loss(attempt)
                    if error is None:
                        return attempt.result()
                    losses += 1
                    deaths += not isinstance(error, ReplicaLost)
                    logger.warning("%s: a replica was lost with a message (%s)", self._method, _first_line(error))
                    if replicas and not attempts:
                        placements.suspect(replicas[-1])
                    if losses >= self._most_losses:
                        raise ReplicaLost(
                            f"{losses} replicas died one after the other with this work; send it again"
                        ) from error
                now_s = time.monotonic()
                if until_s is not None and now_s >= until_s:
                    raise DeadlineExceeded("no replica has answered within the request's time limit")
                if not attempts:
                    RETRIES.labels(self._method).inc()
                    attempts.add(self._begin(message, isolate=deaths >= 2))
                elif not ended and len(replicas) > judged:
                    look_s = _NEXT_LOOK_S
                    if now_s >= stuck_at_s or not await answers(replicas[-1]):
                        placements.suspect(replicas[-1])
                        judged = len(replicas)
                        RETRIES.labels(self._method).inc()
                        attempts.add(self._begin(message, isolate=deaths >= 2))
                        stuck_at_s = now_s + _STUCK_S
        finally:
            placements.forget(message)
            for attempt in attempts:
                attempt.cancel()

    def _begin(self, message: Message, *, isolate: bool = False) -> asyncio.Task[Answer]:
        carry = self._isolate if isolate and self._isolate is not None else self._call
        return asyncio.ensure_future(carry(message))

    async def _call(self, message: Message) -> Answer:
        answer: Answer = await call(self._bound, message)
        return answer


async def call(method: DeploymentHandle, *arguments: Any) -> Any:
    """Call one method of a deployment once; errors of this project's own tree arrive as they were raised."""
    response = method.remote(*arguments)
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except RayTaskError as error:
        if isinstance(error.cause, PoolhouseError):
            raise error.cause from None
        raise


async def call_again(handle: DeploymentHandle, method: str, *arguments: Any) -> Any:
    """Call a method that is cheap and small, twice more if a replica is lost.

    Raises:
        ReplicaLost: three replicas were lost with it.
    """
    losses = 0
    while True:
        try:
            return await call(getattr(handle, method), *arguments)
        except _LOST as error:
            losses += 1
            if losses == 3:
                raise ReplicaLost("three replicas died one after the other with this call; send it again") from error
            RETRIES.labels(method).inc()
            logger.warning("%s: a replica was lost with a call (%s)", method, _first_line(error))


def _loss(attempt: asyncio.Task[Any]) -> BaseException | None:
    """The error that says the replica was lost, or None for an answer, be it an error of the stage."""
    if attempt.cancelled():
        cancelled: BaseException = RequestCancelledError("the replica cancelled the call")
        return cancelled
    error = attempt.exception()
    if isinstance(error, ReplicaLost):
        # The process lives and its encoder does not: it has given the work back.
        return error
    is_answer = isinstance(error, RayTaskError) or not isinstance(error, _LOST)
    return None if is_answer else error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__

"""Calls to other deployments that outlive the replica they went to.

Every stage is idempotent, so a message whose replica died or hangs is sent again to another one, within its deadline. What a
failure means is said by its cause (``cluster.failures``). A message that two replicas died with goes to no third one: it is
tried item by item where that harms nobody, or given up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

from cluster.errors import (
    CallFailed,
    DeadlineExceeded,
    MessageTooLarge,
    NotReady,
    Overloaded,
    PoolhouseError,
    ReplicaLost,
)
from cluster.failures import Cause
from cluster.quarantine import Bound, too_many_isolations
from cluster.telemetry.metrics import RETRIES
from deployments.causes import CALL_FAILURES, cause_of
from deployments.placements import answers, placements

logger = logging.getLogger("poolhouse")

Message = TypeVar("Message", bound=Sized)
Answer = TypeVar("Answer")

# With a probe of half a second, a hung replica is known after 1.2 s: another one answers within two.
_FIRST_LOOK_S = 0.7
_NEXT_LOOK_S = 1.0

_MOST_LOSSES = 4
_MOST_UNEXPLAINED = 3
_DEATHS_BEFORE_ISOLATION = 2
_RETRY_AFTER_S = 1.0


class Method(Generic[Answer]):
    """One method of a deployment, called by gRPC, or through Ray's object store for what is too large for one message."""

    def __init__(self, handle: DeploymentHandle, name: str) -> None:
        self.name = name
        self._handle = handle
        # Made once: each look-up of a method makes a new handle.
        self._direct = getattr(handle, name)
        self._indirect: DeploymentHandle | None = None

    async def __call__(self, *arguments: Any, by_reference: bool = False) -> Answer:
        """Call it once; errors of this project's own tree arrive as they were raised."""
        answer: Answer = await call(self._by_reference() if by_reference else self._direct, *arguments)
        return answer

    def _by_reference(self) -> DeploymentHandle:
        if self._indirect is None:
            self._indirect = getattr(self._handle.options(_by_reference=True), self.name)
        return self._indirect


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


@dataclass(slots=True)
class _Passage(Generic[Answer]):
    """What has become of a message so far.

    Attributes:
        late: done when the message's time is over and it must be tried alone nevertheless.
        dropped: attempts that were given up when the callers left.
        is_left: nobody waits for the answer any more.
    """

    late: asyncio.Future[None]
    failures: Counter[Cause] = field(default_factory=Counter)
    attempts: set[asyncio.Task[Answer]] = field(default_factory=set)
    dropped: set[asyncio.Task[Answer]] = field(default_factory=set)
    is_left: bool = False


class Carrier(Generic[Message, Answer]):
    """Carries messages to one method of a deployment.

    Args:
        limit_s: seconds that a message has, from its requests; None is no limit.
        oversized: whether a message, or its answer, is more than gRPC carries; it goes through the object store.
        isolate: takes a message that two replicas have died with; None sends it on to others.
        isolations: how many messages may go to ``isolate``. Once they have, one that a single replica died with is given up:
            nothing could find out whether it ends each that it meets.
        learn: told of a message and its answer where nobody waits for it any more. A message that a replica died with is
            tried alone to the end, also when its callers have left or its time is over: else a client that is quick to leave
            could end one replica after the other.
        most_losses: after so many lost replicas the message is given up.
    """

    def __init__(
        self,
        handle: DeploymentHandle,
        method: str,
        limit_s: Callable[[Message], float | None],
        oversized: Callable[[Message], bool] = lambda message: False,
        isolate: Callable[..., Awaitable[Answer]] | None = None,
        isolations: Bound | None = None,
        learn: Callable[[Message, Answer], None] = lambda message, answer: None,
        most_losses: int = _MOST_LOSSES,
    ) -> None:
        self._call = Method[Answer](handle, method)
        self._limit_s = limit_s
        self._oversized = oversized
        self._isolate = isolate
        self._isolations = isolations
        self._learn = learn
        self._trials: set[asyncio.Task[Answer]] = set()
        self._most_losses = most_losses

    async def send(self, message: Message) -> Answer:
        """Return the deployment's answer.

        Raises:
            ReplicaLost: replicas were lost with the message, as many as may be.
            CallFailed: it failed several times and nothing says why.
            MessageTooLarge: it has several items and is too large, or a single one for which the object store has no room.
            Overloaded, NotReady: the deployment takes no calls.
            DeadlineExceeded: none has answered in time.
            PoolhouseError: what the stage itself says of the message.
        """
        passage: _Passage[Answer] = _Passage(asyncio.get_running_loop().create_future())
        work = asyncio.ensure_future(self._carry(message, passage))
        try:
            either: set[asyncio.Future[Any]] = {work, passage.late}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise _too_late()
        finally:
            if not work.done():
                if self._isolate is not None and _deaths(passage.failures):
                    self._leave(passage)
                    self._trials.add(work)
                    work.add_done_callback(partial(self._conclude, message))
                else:
                    work.cancel()
            elif not work.cancelled():
                # Nobody else looks at it where the caller was cancelled in the same turn.
                work.exception()

    def _leave(self, passage: _Passage[Answer]) -> None:
        """Nobody waits any more, and what may end replicas goes on to its verdict without ending another one."""
        if not self._is_isolated(passage):
            passage.dropped |= passage.attempts
            for attempt in passage.attempts:
                attempt.cancel()
        passage.is_left = True

    def _conclude(self, message: Message, work: asyncio.Task[Answer]) -> None:
        self._trials.discard(work)
        error = _error_of(work)
        if error is None:
            self._learn(message, work.result())
        else:
            logger.warning(
                "%s: nothing was found out of what a replica died with: %s", self._call.name, _first_line(error)
            )

    async def _carry(self, message: Message, passage: _Passage[Answer]) -> Answer:
        limit_s = self._limit_s(message)
        until_s = None if limit_s is None else time.monotonic() + limit_s
        replicas = placements.follow(message)
        failures, attempts = passage.failures, passage.attempts
        by_reference = self._oversized(message)
        attempts.add(self._begin(message, passage, by_reference))
        look_s = _FIRST_LOOK_S
        judged = 0
        try:
            while True:
                wait_s = look_s
                if until_s is not None and not passage.is_left:
                    wait_s = min(look_s, max(0.0, until_s - time.monotonic()))
                ended, _ = await asyncio.wait(attempts, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                for attempt in ended:
                    attempts.remove(attempt)
                    if attempt in passage.dropped:
                        continue
                    error = _error_of(attempt)
                    if error is None:
                        return attempt.result()
                    if self._is_isolated(passage) and isinstance(error, PoolhouseError):
                        # Nothing could be found out there, and would be elsewhere.
                        raise error
                    cause = cause_of(error)
                    if cause is Cause.MESSAGE_TOO_LARGE and not by_reference and len(message) == 1:
                        by_reference = True
                        continue
                    failures[cause] += 1
                    logger.warning("%s: a call failed: %s (%s)", self._call.name, cause.value, _first_line(error))
                    if cause.suspects_replica and replicas and not attempts:
                        placements.suspect(replicas[-1], ended=cause.ends_replica)
                    _raise_if_vain(cause, failures, error, self._most_losses)
                if until_s is not None and not passage.is_left and time.monotonic() >= until_s:
                    if self._isolate is None or not _deaths(failures):
                        raise _too_late()
                    self._leave(passage)
                    passage.late.set_result(None)
                    if attempts:
                        continue
                if not attempts:
                    RETRIES.labels(self._call.name).inc()
                    attempts.add(self._begin(message, passage, by_reference))
                elif not ended and len(replicas) > judged:
                    look_s = _NEXT_LOOK_S
                    # One that answers is at work, or its own health check says that it is not.
                    if not await answers(replicas[-1]):
                        placements.suspect(replicas[-1])
                        judged = len(replicas)
                        RETRIES.labels(self._call.name).inc()
                        attempts.add(self._begin(message, passage, by_reference))
        finally:
            placements.forget(message)
            for attempt in attempts:
                attempt.cancel()

    def _begin(self, message: Message, passage: _Passage[Answer], by_reference: bool) -> asyncio.Task[Answer]:
        carry: Callable[..., Awaitable[Answer]] = self._call
        if self._isolate is not None and _deaths(passage.failures):
            wait_s = self._isolations.wait_s if self._isolations is not None else 0.0
            if wait_s > 0:
                raise too_many_isolations(wait_s)
            if self._is_isolated(passage):
                carry = self._isolate
                if self._isolations is not None:
                    self._isolations.take()
        return asyncio.ensure_future(carry(message, by_reference=True) if by_reference else carry(message))

    def _is_isolated(self, passage: _Passage[Answer]) -> bool:
        # When nobody waits, no second replica has to die.
        needed = 1 if passage.is_left else _DEATHS_BEFORE_ISOLATION
        return self._isolate is not None and _deaths(passage.failures) >= needed


def _deaths(failures: Counter[Cause]) -> int:
    """How many replicas died with the message, and perhaps of it."""
    return sum(count for cause, count in failures.items() if cause.may_be_the_message)


async def call_again(handle: DeploymentHandle, method: str, *arguments: Any) -> Any:
    """Call a method that is cheap and may be called again; an answer too large for gRPC comes through the object store.

    Raises:
        ReplicaLost: three replicas were lost with it.
        CallFailed, MessageTooLarge, Overloaded, NotReady, PoolhouseError: as ``Carrier.send``.
    """
    bound = Method[Any](handle, method)
    failures: Counter[Cause] = Counter()
    by_reference = False
    while True:
        try:
            return await bound(*arguments, by_reference=by_reference)
        except CALL_FAILURES as error:
            cause = cause_of(error)
            if cause is Cause.MESSAGE_TOO_LARGE and not by_reference:
                by_reference = True
                continue
            failures[cause] += 1
            _raise_if_vain(cause, failures, error, most_losses=3)
            RETRIES.labels(method).inc()
            logger.warning("%s: a call failed: %s (%s)", method, cause.value, _first_line(error))


def _raise_if_vain(cause: Cause, failures: Counter[Cause], error: BaseException, most_losses: int) -> None:
    """Raise what a caller is told, unless another call may succeed."""
    if cause is Cause.STAGE_ERROR:
        raise error
    if cause is Cause.MESSAGE_TOO_LARGE:
        raise MessageTooLarge(
            "this input, or its answer, is larger than what parts of the server can send each other; send a shorter one"
        ) from error
    if cause is Cause.BUSY:
        raise Overloaded("a part of the server has as many calls as it takes; try again", retry_after_s=_RETRY_AFTER_S)
    if cause is Cause.NOT_DEPLOYED:
        raise NotReady("a part of the server failed to start; try again later", retry_after_s=_RETRY_AFTER_S)
    if failures[Cause.UNEXPLAINED] >= _MOST_UNEXPLAINED:
        raise CallFailed(
            f"a call between parts of the server failed {_MOST_UNEXPLAINED} times and nothing says why; send the request again",
            retry_after_s=_RETRY_AFTER_S,
        ) from error
    losses = sum(count for each, count in failures.items() if each.suspects_replica)
    if losses >= most_losses:
        raise ReplicaLost(f"{losses} replicas were lost one after the other with this work; send it again") from error


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("no replica has answered within the request's time limit")


def _error_of(attempt: asyncio.Task[Any]) -> BaseException | None:
    return asyncio.CancelledError() if attempt.cancelled() else attempt.exception()


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__

"""Finds out which item of a message kills an encoder: each runs alone, in a child process that may die of it.

The child loads the encoder as a replica does, without Ray, and answers one message at a time over a pipe. An item is found guilty
only when native code ended the child with it twice, and a control, as long as the item, survived in between in the child that
died second: a failed allocation ends a child, too, and then the control as well. All else that may happen to a child, such as
the out-of-memory killer, an eviction, an update or a deadline, says nothing of the item.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np

from cluster.batching.encoder import stuck_after_s
from cluster.errors import DeadlineExceeded, PoolhouseError, ReplicaLost, VersionChanged
from cluster.isolated import Child, ChildEnded, ChildSlow, Stopped
from cluster.quarantine import poisonous
from cluster.types import Int32, TokenBatch, VectorBatch

logger = logging.getLogger("poolhouse")

# Two that native code ends, and one that is ended from outside.
_MOST_TRIES = 3

_RETRY_AFTER_S = 10.0


def encode_isolated(
    args: dict[str, Any], encoder: str, batch: TokenBatch, stop: threading.Event | None = None
) -> VectorBatch:
    """Encode every item of ``batch`` alone; those that are found guilty carry a PoisonousInput.

    An item that nothing could be found out about carries an error that says so, and that it may be sent again.

    Args:
        args: of the configuration, as in the YAML.
        encoder: name of the encoder whose message it is.
        stop: set from another thread when nobody waits any more.

    Raises:
        VersionChanged: the message was prepared for another version of the model; none of its items was encoded.
        ReplicaLost: the child does not even start, or the work was stopped.
    """
    isolation = _Isolation(args, encoder, stop or threading.Event())
    try:
        answers = [
            VectorBatch.refused(batch.fingerprint, batch.errors[item])
            if item in batch.errors
            else isolation.encode(replace(batch.select([item]), backlog=None))
            for item in range(len(batch))
        ]
    except Stopped as error:
        raise ReplicaLost("nobody waits for this work any more; send it again") from error
    finally:
        isolation.close()
    # What the child says of its own speed and slots says nothing of the replica.
    return replace(VectorBatch.concatenate(answers), report=None)


def with_time_for_a_verdict(batch: TokenBatch, seconds: float) -> TokenBatch:
    """Return a message whose requests have so many seconds from now at least: a verdict is of use when they are over, too."""
    until_s = time.monotonic() + seconds
    requests = [
        request if request.deadline_s is None else replace(request, deadline_s=max(request.deadline_s, until_s))
        for request in batch.requests
    ]
    return replace(batch, requests=requests)


class _NoChild(Exception):
    """A child does not start."""


class _Isolation:
    """Tries items, in a child that is started again when it has died."""

    def __init__(self, args: dict[str, Any], encoder: str, stop: threading.Event) -> None:
        self._args = args
        self._encoder = encoder
        self._stop = stop
        self._child: Child | None = None
        self._has_started = False
        self._no_child: ReplicaLost | None = None

    def encode(self, item: TokenBatch) -> VectorBatch:
        """Return the answer to a message of one item, or one that says why there is none."""
        if self._no_child is not None:
            return VectorBatch.refused(item.fingerprint, self._no_child)
        try:
            return self._judge(item)
        except VersionChanged:
            raise
        except _NoChild as error:
            self._no_child = ReplicaLost(
                "encoders died with this work and another one to try it alone does not start; send it again later",
                retry_after_s=_RETRY_AFTER_S,
            )
            if not self._has_started:
                raise self._no_child from error
            # What was found out before stands.
            return VectorBatch.refused(item.fingerprint, self._no_child)
        except PoolhouseError as error:
            return VectorBatch.refused(item.fingerprint, error)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _judge(self, item: TokenBatch) -> VectorBatch:
        deaths = 0
        for tried in range(1, _MOST_TRIES + 1):
            try:
                return self._run(item)
            except ChildEnded as error:
                logger.warning("an isolated encoder ended (%s) with an input of %d tokens", error, len(item.token_ids))
                deaths += error.cause.lies_in_the_input
            if deaths == 2:
                raise poisonous()
            if tried == _MOST_TRIES:
                break
            # Also after an end from outside: what is short of memory may end the next child by itself.
            try:
                self._run(_control(item, self._started().known_ids))
            except ChildEnded as error:
                logger.warning("a known text of as many tokens ends an isolated encoder, too (%s)", error)
                break
        raise ReplicaLost(
            "encoders died with this work, and what tried it alone was ended as well, so nothing is known of it; send it "
            "again later",
            retry_after_s=_RETRY_AFTER_S,
        )

    def _run(self, item: TokenBatch) -> VectorBatch:
        """Encode one item within its request's time and the engine's."""
        remaining_s = item.requests[int(item.owner[0])].remaining_s
        limit_s = stuck_after_s(len(item.token_ids), None)
        if remaining_s is not None and remaining_s <= 0:
            raise DeadlineExceeded("the request's deadline passed before it was tried alone")
        child = self._started()
        try:
            return child.encode(item, limit_s if remaining_s is None else min(limit_s, remaining_s), self._stop)
        except ChildEnded:
            self._child = None
            raise
        except ChildSlow as error:
            self._child = None
            if remaining_s is not None and remaining_s <= limit_s:
                raise DeadlineExceeded("the request's deadline passed while it was tried alone") from error
            raise ReplicaLost(
                f"the engine has not come back from this input alone within {limit_s:.0f} s; send it again later",
                retry_after_s=_RETRY_AFTER_S,
            ) from error

    def _started(self) -> Child:
        if self._child is None:
            try:
                self._child = Child(self._args, self._encoder, self._stop)
                self._has_started = True
            except (ChildEnded, ChildSlow) as error:
                raise _NoChild from error
        return self._child


def _control(item: TokenBatch, known_ids: Int32) -> TokenBatch:
    """A message like that of ``item``, of a text that is known to be harmless and as long: it needs as much memory."""
    return replace(item, token_ids=np.resize(known_ids, len(item.token_ids)))

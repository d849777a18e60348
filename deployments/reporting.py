"""What a replica tells Serve's controller for autoscaling, and what an ingress tells the encoders it waits for."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.batching.load import EngineLoad
from cluster.live import EncoderSettings
from deployments.autoscaling import REPORTED, WAITING

logger = logging.getLogger("poolhouse")

REPORT_S = 1.0
"""How often an ingress tells an encoder of its queue."""

_FORGET_AFTER_S = 5.0
_MEMORY_BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one ingress says of its queue for one encoder, by its own clock."""

    ingress: str
    tokens: int
    reported_s: float


class BusyMeter:
    """The share of time that something was busy since it was last asked.

    Args:
        busy_s: seconds busy so far; the processor time of this process where nothing else is given.
    """

    def __init__(
        self, busy_s: Callable[[], float] = time.process_time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read_busy_s = busy_s
        self._clock = clock
        self._busy_s = busy_s()
        self._at_s = clock()

    def share(self) -> float:
        """Return the share since the last call."""
        busy_s, at_s = self._read_busy_s(), self._clock()
        passed_s = at_s - self._at_s
        share = (busy_s - self._busy_s) / passed_s if passed_s > 0 else 0.0
        self._busy_s, self._at_s = busy_s, at_s
        return share


class EncoderReport:
    """An encoder replica's measures, as ``deployments.autoscaling.TokenPolicy`` reads them.

    Args:
        pending_tokens: reads what is queued or in work here.
        calibrated_tokens_per_s: what the engine did at the start; counts until it has worked for a while.
    """

    def __init__(
        self,
        load: EngineLoad,
        pending_tokens: Callable[[], int],
        calibrated_tokens_per_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = EncoderSettings()
        self._load = load
        self._pending_tokens = pending_tokens
        self._calibrated = calibrated_tokens_per_s
        self._clock = clock
        self._busy = BusyMeter(lambda: load.busy_s, clock)
        self._ended_tokens, self._ended_s = load.ended_calls
        self._memory_tokens = self._memory_s = 0.0
        self._tokens_per_message = 0.0
        self._backlogs: dict[str, tuple[Backlog, float]] = {}

    def heard(self, backlog: Backlog) -> None:
        """Remember what an ingress says."""
        self._backlogs[backlog.ingress] = (backlog, self._clock())

    def received(self, tokens: int) -> None:
        """Learn the size of messages."""
        weight = 0.1 if self._tokens_per_message else 1.0
        self._tokens_per_message += weight * (tokens - self._tokens_per_message)

    def tokens_per_s(self) -> float:
        """Tokens per second of busy time, over the last half minute or so of it; 0 while nothing is known."""
        tokens, ended_s = self._load.ended_calls
        new_s = ended_s - self._ended_s
        # Time at rest does not fade the memory: a replica is as fast after a quiet night as it was before.
        keep = max(0.0, 1.0 - new_s / _MEMORY_BUSY_S)
        self._memory_tokens = self._memory_tokens * keep + tokens - self._ended_tokens
        self._memory_s = self._memory_s * keep + new_s
        self._ended_tokens, self._ended_s = tokens, ended_s
        given = self.settings.tokens_per_s or self._calibrated
        # What was measured before weighs as much as one second of work here.
        prior_tokens, prior_s = (given, 1.0) if given is not None else (0.0, 0.0)
        seconds = self._memory_s + prior_s
        return (self._memory_tokens + prior_tokens) / seconds if seconds else 0.0

    def measures(self) -> dict[str, float]:
        """Return all measures; Serve asks several times in a look-back period."""
        now_s = self._clock()
        self._backlogs = {
            ingress: (backlog, heard_s)
            for ingress, (backlog, heard_s) in self._backlogs.items()
            if now_s - heard_s <= _FORGET_AFTER_S
        }
        measures = {
            "pending_tokens": float(self._pending_tokens()),
            "busy_share": self._busy.share(),
            "tokens_per_s": self.tokens_per_s(),
            "tokens_per_message": self._tokens_per_message,
            "target_wait_s": self.settings.target_wait_s,
            "target_busy_share": self.settings.target_busy_share,
        }
        for ingress, (backlog, _) in self._backlogs.items():
            measures[WAITING + ingress] = float(backlog.tokens)
            measures[REPORTED + ingress] = backlog.reported_s
        return measures


class BacklogReporter:
    """Tells each encoder, once a second while there is something to tell, how many tokens wait for it here.

    Batches form in the ingress, where Serve does not count them. The report goes beside the work, not with it, so that
    messages stay as they are; an encoder at rest, asleep perhaps, is told nothing.

    Args:
        queued_tokens: reads the tokens that wait here, by encoder.
    """

    def __init__(
        self, encoders: Mapping[str, DeploymentHandle], queued_tokens: Callable[[], Mapping[str, int]]
    ) -> None:
        self._encoders = dict(encoders)
        self._queued_tokens = queued_tokens
        self._ingress = uuid.uuid4().hex[:12]
        self._told: dict[str, int] = {}
        self._task = asyncio.get_running_loop().create_task(self._keep_telling())

    def stop(self) -> None:
        """End the background task."""
        self._task.cancel()

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            queued = self._queued_tokens()
            # A queue that has emptied is said to be empty once.
            due = [name for name, tokens in queued.items() if tokens or self._told.get(name)]
            if due:
                await asyncio.gather(*(self._tell(name, queued[name]) for name in due))

    async def _tell(self, name: str, tokens: int) -> None:
        try:
            async with asyncio.timeout(REPORT_S):
                await self._encoders[name].hear.remote(Backlog(self._ingress, tokens, time.time()))
            self._told[name] = tokens
        except (TimeoutError, RayError, RayServeException) as error:
            # The next report says it anew; scaling is late by a second.
            logger.debug("the encoder %s was not told of the queue: %s", name, error)

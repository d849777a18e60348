"""What a replica tells Serve's controller for autoscaling, and what an ingress tells the encoders it waits for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from ray.serve.handle import DeploymentHandle

from cluster.batching.reports import EncoderState
from cluster.live import EncoderSettings
from cluster.types import Backlog
from deployments import retries
from deployments.autoscaling import BACKLOG, REPORTED
from deployments.background import repeat

logger = logging.getLogger("poolhouse")

REPORT_S = 1.0
"""How often an ingress tells an encoder of its work for it."""


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
        state: reads the encoder.
    """

    def __init__(self, state: Callable[[], EncoderState], clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = EncoderSettings()
        self._state = state
        self._busy = BusyMeter(lambda: state().busy_s, clock)

    def measures(self) -> dict[str, float]:
        """Return all measures; Serve asks several times in a look-back period."""
        state = self._state()
        given = None if state.has_measured else self.settings.tokens_per_s
        measures = {
            "pending_tokens": float(state.pending_tokens),
            "busy_share": self._busy.share(),
            "tokens_per_s": given or state.tokens_per_s or 0.0,
            "has_measured": float(state.has_measured),
            "target_wait_s": self.settings.target_wait_s,
            "target_busy_share": self.settings.target_busy_share,
        }
        for backlog in state.backlogs:
            measures[BACKLOG + backlog.ingress] = float(backlog.tokens)
            measures[REPORTED + backlog.ingress] = backlog.reported_s
        return measures


class BacklogReporter:
    """Tells each encoder, once a second while there is something to tell, how much work this ingress has for it.

    Most of it waits in the ingress, where batches form and Serve does not count them. Messages say the same, but none leaves
    while as many as may be are on their way. An encoder at rest, asleep perhaps, is told nothing.

    Args:
        backlog: reads this ingress's work for an encoder.
    """

    def __init__(self, encoders: Mapping[str, DeploymentHandle], backlog: Callable[[str], Backlog]) -> None:
        self._encoders = dict(encoders)
        self._backlog = backlog
        self._told: dict[str, int] = {}
        self._task = asyncio.get_running_loop().create_task(repeat("backlog", lambda: REPORT_S, self._tell_all))

    def stop(self) -> None:
        """End the background task."""
        self._task.cancel()

    async def _tell_all(self) -> None:
        backlogs = {name: self._backlog(name) for name in self._encoders}
        # Work that has been done is said to be none once.
        due = [name for name, backlog in backlogs.items() if backlog.tokens or self._told.get(name)]
        await asyncio.gather(*(self._tell(name, backlogs[name]) for name in due))

    async def _tell(self, name: str, backlog: Backlog) -> None:
        # A lost replica shows as many kinds of errors, a cancellation among them, and none may end the reports.
        call = asyncio.ensure_future(retries.call(self._encoders[name].hear, backlog))
        ended, _ = await asyncio.wait([call], timeout=REPORT_S)
        if not ended:
            call.cancel()
        elif call.cancelled() or call.exception() is not None:
            # The next report says it anew; scaling is late by a second.
            logger.debug("the encoder %s was not told of the backlog", name)
        else:
            self._told[name] = backlog.tokens

"""How many replicas each deployment runs, kept fresh in the background."""

from __future__ import annotations

import asyncio
import logging

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatusOverview, ReplicaState

from cluster.telemetry.metrics import BACKGROUND_FAILURES
from deployments.background import repeat

logger = logging.getLogger("poolhouse")

REFRESH_S = 2.0

# While a deployment has not run yet every request for it is refused, so its start must not go unnoticed for long.
_STARTING_REFRESH_S = 0.25

# A controller that hangs or restarts must not take the ingress's health with it: what was known last is told then.
_ANSWER_S = 1.0


class ReplicaWatch:
    """Asks the controller for the application's deployments every ``REFRESH_S`` seconds, off the request path."""

    def __init__(self) -> None:
        self._application = serve.get_replica_context().app_name
        self._running: dict[str, int] = {}
        self._asleep: set[str] = set()
        self._has_run: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to refresh; the first answer is there on return."""
        await self._refresh()
        self._task = asyncio.get_running_loop().create_task(repeat("replicas", self._pause_s, self._try_to_refresh))

    def stop(self) -> None:
        """End the background task."""
        if self._task is not None:
            self._task.cancel()

    def running(self, deployment: str) -> int:
        """Running replicas; at least 1, so that a deployment that sleeps is sent the message that wakes it."""
        return max(1, self._running.get(deployment, 0))

    def can_take_work(self, deployment: str) -> int:
        """Running replicas; 0 only until the first one has started. One that is lost or sleeps is about to come back."""
        return self.running(deployment) if deployment in self._has_run | self._asleep else 0

    async def not_running(self) -> list[str]:
        """Names of the deployments that should run and do not yet. One scaled to zero on purpose is not among them."""
        await self._try_to_refresh(_ANSWER_S)
        return sorted(
            name
            for name, running in self._running.items()
            # The ingress asks on behalf of itself: it runs, whatever the controller has heard so far.
            if running == 0 and name not in self._asleep and name != "Ingress"
        )

    def _pause_s(self) -> float:
        starting = self._running.keys() - self._has_run - self._asleep
        return _STARTING_REFRESH_S if starting else REFRESH_S

    async def _try_to_refresh(self, within_s: float | None = None) -> None:
        """Ask the controller, or wait for the answer to a question that is still open: each holds a thread."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh_or_warn())
        await asyncio.wait([self._refreshing], timeout=within_s)

    async def _refresh_or_warn(self) -> None:
        try:
            await self._refresh()
        except (RayError, RayServeException) as error:
            # The controller restarts by itself; until then the last known numbers serve.
            logger.warning("the number of replicas could not be refreshed: %s", error)
        except Exception:
            BACKGROUND_FAILURES.labels("replicas").inc()
            logger.exception("the number of replicas could not be refreshed")

    async def _refresh(self) -> None:
        status = await asyncio.to_thread(serve.status)
        application: ApplicationStatusOverview | None = status.applications.get(self._application)
        if application is None:
            return
        self._running = {
            name: int(deployment.replica_states.get(ReplicaState.RUNNING, 0))
            for name, deployment in application.deployments.items()
        }
        self._has_run |= {name for name, running in self._running.items() if running}
        self._asleep = {
            name
            for name, deployment in application.deployments.items()
            # Autoscaling alone takes the last replica or adds the first; whatever died on its own has another status.
            if deployment.status in ("UPSCALING", "DOWNSCALING")
            or (sum(deployment.replica_states.values()) == 0 and deployment.status == "HEALTHY")
        }

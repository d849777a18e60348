"""Serve's power-of-two-choices router, but for replicas that are suspect."""

from __future__ import annotations

import random
from typing import Any

from ray.serve.request_router import FIFOMixin, RequestRouter

# The module, not its object: Serve may copy this class by value, and the notes must be those of the process.
from deployments import placements as shared


class CarefulRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]  # Ray is not typed
    """Chooses the less busy one of two replicas, as Serve's own does, among those that are trusted.

    Messages are placed first in, first out. Serve's other way finds them by their request's id, which two messages of one
    request share: one of them would wait for ever.
    """

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """Return one rank of at most two replicas; none while all are suspect, and Serve asks again."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        trusted = shared.placements.trusted(candidate_replicas)
        return [random.sample(trusted, min(2, len(trusted)))] if trusted else []

    async def _choose_replica_for_request(self, pending_request: Any, *, is_retry: bool = False) -> Any:
        replica = await super()._choose_replica_for_request(pending_request, is_retry=is_retry)
        if pending_request.args:
            shared.placements.note(pending_request.args[0], replica)
        return replica

"""Chooses the replica for each message, by what this process has sent it, and none that is suspect."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import FIFOMixin, RequestRouter

# The module, not its object: Serve may copy this class by value, and the notes must be those of the process.
from deployments import placements as shared


class CarefulRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]  # Ray is not typed
    """Chooses the replica that has least to do for this process, in tokens: messages differ a hundredfold.

    Of several that have equally little, Serve takes the one whose queue is shorter, which tells of other processes' messages.
    Messages are placed first in, first out. Serve's other way finds them by their request's id, which two messages of one
    request share: one of them would wait for ever.
    """

    def initialize_state(self, **kwargs: Any) -> None:
        """Called by Serve when it has made the router."""
        self._last_offers: dict[str, int] = {}

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """Return the best one or two replicas and the next two; none while all are suspect, and Serve asks again."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        return _ranked(shared.placements.trusted(candidate_replicas), shared.placements.loads(), self._last_offers)

    async def _choose_replica_for_request(self, pending_request: Any, *, is_retry: bool = False) -> Any:
        replica = await super()._choose_replica_for_request(pending_request, is_retry=is_retry)
        if pending_request.args:
            shared.placements.note(pending_request.args[0], replica)
        return replica


def _ranked(replicas: list[Any], loads: dict[str, int], last_offers: dict[str, int]) -> list[list[Any]]:
    """Return the least loaded replicas in ranks of at most two, and count the first rank among ``last_offers``.

    Messages that are placed at the same moment do not show in ``loads`` yet: of equal replicas, those that were offered longest
    ago come first.
    """
    keys = {replica: replica.replica_id.unique_id for replica in replicas}
    for gone in last_offers.keys() - keys.values():
        del last_offers[gone]

    def load(replica: Any) -> int:
        return loads.get(keys[replica], 0)

    ordered = sorted(replicas, key=lambda replica: (load(replica), last_offers.get(keys[replica], 0)))
    equal = 2 if len(ordered) > 1 and load(ordered[0]) == load(ordered[1]) else 1
    now = max(last_offers.values(), default=0) + 1
    for replica in ordered[:equal]:
        last_offers[keys[replica]] = now
    return [rank for rank in (ordered[:equal], ordered[equal : equal + 2]) if rank]

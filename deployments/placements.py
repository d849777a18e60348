"""Which replica each message went to, and which replicas are not to be trusted with another one.

Serve's router chooses the replica and does not tell the caller; ``deployments.careful_router`` notes its choice here, in the
same process. A replica that died, or hangs, is suspect: it gets nothing more until it answers a probe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayError

from cluster.telemetry.metrics import BACKGROUND_FAILURES
from cluster.types import TokenBatch
from deployments.causes import cause_of

logger = logging.getLogger("poolhouse")

# A process that lives answers within milliseconds, on a machine that is out of CPU within tenths of a second.
PROBE_TIMEOUT_S = 0.5
_PROBE_PERIOD_S = 1.0

# Serve drops a dead replica from its lists within this time; after it, the name means nothing any more.
_PROBES_BEFORE_FORGOTTEN = 120


class Placements:
    """One for each process, used by routers on any thread: each step is a single operation on a dict or list."""

    def __init__(self) -> None:
        self._followed: dict[int, tuple[int, list[Any]]] = {}
        self._suspects: dict[str, Any] = {}
        self._ended: set[str] = set()
        self._probes: set[asyncio.Task[None]] = set()

    def follow(self, message: object) -> list[Any]:
        """Begin to note where ``message`` goes; the list grows with each replica that it is sent to."""
        return self._followed.setdefault(id(message), (_weight(message), []))[1]

    def forget(self, message: object) -> None:
        """The message is answered."""
        self._followed.pop(id(message), None)

    def note(self, message: object, replica: Any) -> None:
        """A router sends ``message`` to ``replica``."""
        followed = self._followed.get(id(message))
        if followed is not None:
            followed[1].append(replica)

    def loads(self) -> dict[str, int]:
        """What replicas have from this process and have not answered: tokens at encoders, messages elsewhere; by unique id."""
        loads: dict[str, int] = {}
        for weight, replicas in list(self._followed.values()):
            for replica in replicas:
                name = replica.replica_id.unique_id
                loads[name] = loads.get(name, 0) + weight
        return loads

    def trusted(self, replicas: Sequence[Any]) -> list[Any]:
        """Those of ``replicas`` that are not suspect."""
        if not self._suspects:
            return list(replicas)
        return [replica for replica in replicas if replica.replica_id.unique_id not in self._suspects]

    def suspect(self, replica: Any, *, ended: bool = False) -> None:
        """Send ``replica`` nothing more until it answers a probe, or never again where it has ``ended``, answers or not."""
        name = replica.replica_id.unique_id
        if ended:
            self._ended.add(name)
        if name in self._suspects:
            return
        logger.warning(
            "%s %s", replica.replica_id, "has ended" if ended else "does not answer; it gets no work until it does"
        )
        self._suspects[name] = replica
        task = asyncio.get_running_loop().create_task(self._watch(name, replica))
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    def close(self) -> None:
        """End the probes."""
        for probe in self._probes:
            probe.cancel()

    async def _watch(self, name: str, replica: Any) -> None:
        try:
            for _ in range(_PROBES_BEFORE_FORGOTTEN):
                await asyncio.sleep(_PROBE_PERIOD_S)
                if await answers(replica) and name not in self._ended:
                    logger.warning("%s answers again", replica.replica_id)
                    break
        finally:
            # Else a probe that fails in a way of its own would leave the replica without work for ever.
            self._suspects.pop(name, None)
            self._ended.discard(name)


def _weight(message: object) -> int:
    return len(message.token_ids) if isinstance(message, TokenBatch) else 1


async def answers(replica: Any) -> bool:
    """Whether the replica's process answers a call that costs it nothing."""
    try:
        await asyncio.wait_for(replica.get_queue_len(deadline_s=PROBE_TIMEOUT_S), PROBE_TIMEOUT_S)
    except TimeoutError:
        return False
    except RayError as error:
        return not cause_of(error).suspects_replica
    except Exception:
        BACKGROUND_FAILURES.labels("probe").inc()
        logger.exception("a probe of %s failed", replica.replica_id)
        return False
    return True


placements = Placements()

"""The Pooler deployment: normalises, cuts and prints vectors, and scores documents by their tokens' vectors."""

from __future__ import annotations

from cluster.offload import Offload
from cluster.pooler import InteractionBatch, PieceBatch, PoolerBatch
from cluster.pooler import Pooler as PoolerStage
from cluster.types import Float32
from deployments.stage import Stage


class Pooler(Stage):
    """Serve deployment around ``cluster.pooler.Pooler``."""

    def __init__(self) -> None:
        self._stage = PoolerStage()
        self._offload = Offload()
        self.start_reporting()

    async def finish(self, batch: PoolerBatch) -> PieceBatch:
        """Finish one message, off the event loop where it is long."""
        return await self._offload.run(batch.cost_s, self._stage.finish, batch)

    async def score(self, batch: InteractionBatch) -> Float32:
        """Score one message, off the event loop where it is long."""
        return await self._offload.run(batch.cost_s, self._stage.score, batch)

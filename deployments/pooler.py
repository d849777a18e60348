"""The Pooler deployment: normalises, cuts and prints vectors."""

from __future__ import annotations

import asyncio

from cluster.pooler import PieceBatch, PoolerBatch
from cluster.pooler import Pooler as PoolerStage
from deployments.stage import Stage


class Pooler(Stage):
    """Serve deployment around ``cluster.pooler.Pooler``."""

    def __init__(self) -> None:
        self._stage = PoolerStage()
        self.start_reporting()

    async def finish(self, batch: PoolerBatch) -> PieceBatch:
        """Finish one message off the event loop."""
        return await asyncio.to_thread(self._stage.finish, batch)

"""The Encoder deployment: one model's weights on its own thread."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.assembly import load_encoder
from cluster.config import parse_config
from cluster.types import TokenBatch, VectorBatch


class Encoder:
    """Serve deployment around ``cluster.batching.encoder.Encoder``; it is ready once it has encoded a known text."""

    def __init__(self, args: dict[str, Any], name: str) -> None:
        self._stage = load_encoder(parse_config(args), name)

    async def encode(self, batch: TokenBatch) -> VectorBatch:
        """Encode one message."""
        return await asyncio.wrap_future(self._stage.submit(batch))

    def check_health(self) -> None:
        """Raise when the encoder's thread has ended."""
        self._stage.check_health()

    def __del__(self) -> None:
        stage = getattr(self, "_stage", None)
        if stage is not None:
            stage.close()

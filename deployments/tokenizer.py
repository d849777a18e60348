"""The Tokenizer deployment: vocabularies of all models, no weights."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.assembly import describe, load_tokenizer, vocabularies
from cluster.calls import Input
from cluster.config import parse_config
from cluster.offload import Offload
from cluster.showing import ShowingThreads
from cluster.stages import ModelDescription
from cluster.telemetry.tracing import TRACING
from cluster.texts import TextBatch
from cluster.tokenization import ShownTokens
from cluster.types import Int32, TokenBatch
from deployments.failures import failures_told
from deployments.stage import Stage
from deployments.updates import after_encoders, version_of


class Tokenizer(Stage):
    """Serve deployment around ``cluster.tokenization.Tokenizer``."""

    async def __init__(self, args: dict[str, Any]) -> None:  # type: ignore[misc]  # Serve awaits it
        self._config = config = parse_config(args)
        self._version = version_of(args)
        self._offload = Offload()
        with failures_told("the Tokenizer"):
            self._stage = await asyncio.to_thread(load_tokenizer, config)
        self._showing = ShowingThreads(self._stage)
        await after_encoders([f"Encoder-{name}" for name in config.encoders])
        self.start_reporting(tracing=config.tracing)

    async def describe(self, version: str) -> dict[str, ModelDescription] | None:
        """What the ingress needs to know of each model; None where it is of another version of the application."""
        return describe(self._stage) if version == self._version else None

    async def vocabularies(self, version: str) -> dict[str, bytes | None] | None:
        """Each model's vocabulary, for an ingress that tokenizes short texts itself; None for one of another version."""
        return await asyncio.to_thread(vocabularies, self._config) if version == self._version else None

    async def tokenize(self, batch: TextBatch) -> TokenBatch:
        """Tokenize one message, off the event loop where it is long."""
        with TRACING.spans("tokenize message", (request.trace for request in batch.requests)):
            return await self._offload.run(batch.cost_s, self._stage.tokenize, batch)

    async def tokens(
        self, model: str, content: Input, add_special: bool, parse_special: bool, with_pieces: bool
    ) -> ShownTokens:
        """Return the tokens of one content."""
        return await self._showing.tokens(model, content, add_special, parse_special, with_pieces)

    async def text(self, model: str, ids: Int32) -> str:
        """Return the text of token ids."""
        return await self._showing.text(model, ids)

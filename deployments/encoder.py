"""The Encoder deployment: one model's weights on its own thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from cluster.assembly import load_encoder
from cluster.config import parse_config
from cluster.isolation import encode_isolated, with_time_for_a_verdict
from cluster.live import EncoderSettings, parse_settings
from cluster.quarantine import ISOLATIONS, ISOLATIONS_WITHIN_S, Bound, too_many_isolations
from cluster.telemetry.metrics import PENDING_TOKENS
from cluster.telemetry.tracing import TRACING
from cluster.types import Backlog, TokenBatch, VectorBatch
from deployments.failures import failures_told
from deployments.reporting import EncoderReport
from deployments.stage import Stage


class Encoder(Stage):
    """Serve deployment around ``cluster.batching.encoder.Encoder``; it is ready once it has encoded a known text."""

    def __init__(self, args: dict[str, Any], name: str) -> None:
        config = parse_config(args)
        self._args = args
        self._name = name
        self._timeout_s = config.limits.timeout_s
        self._isolating = asyncio.Lock()
        self._isolations = Bound(ISOLATIONS, ISOLATIONS_WITHIN_S)
        with failures_told(f"the encoder {name!r}"):
            self._stage = load_encoder(config, name)
        self._report = EncoderReport(self._stage.state)
        self.start_reporting(
            lambda: PENDING_TOKENS.labels(name).set(self._stage.pending_tokens), tracing=config.tracing
        )
        self.at_end(self._stage.close)

    async def encode(self, batch: TokenBatch) -> VectorBatch:
        """Encode one message."""
        with TRACING.spans("encode message", (request.trace for request in batch.requests)):
            return await asyncio.wrap_future(self._stage.submit(batch))

    async def hear(self, backlog: Backlog) -> None:
        """Take an ingress's word on its work for this encoder."""
        self._stage.hear(backlog)

    def reconfigure(self, user_config: object) -> None:
        """Take the YAML's ``user_config``.

        Raises:
            ConfigError: it is not valid.
        """
        self._report.settings = parse_settings(EncoderSettings, user_config)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what ``deployments.autoscaling.TokenPolicy`` reads."""
        return self._report.measures()

    async def isolate(self, batch: TokenBatch) -> VectorBatch:
        """Encode a message that replicas have died with, each item alone, in a process that may die of it.

        Raises:
            ReplicaLost: as many messages as may be were tried in the last minutes.
            VersionChanged: it was prepared for another version of the model.
        """
        if not self._isolations.take():
            raise too_many_isolations(self._isolations.wait_s)
        batch = with_time_for_a_verdict(batch, self._timeout_s)
        # One at a time: the child needs as much memory as the replica.
        async with self._isolating:
            stop = threading.Event()
            work = asyncio.ensure_future(asyncio.to_thread(encode_isolated, self._args, self._name, batch, stop))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                # The thread goes on when its caller has gone, and so does its child: the next one waits for its end.
                stop.set()
                await asyncio.gather(work, return_exceptions=True)
                raise

    def check_health(self) -> None:
        """Raise when the encoder can no longer encode."""
        self._stage.check_health()

"""The Ingress deployment: HTTP in, HTTP out; it drives the stages."""

from __future__ import annotations

from typing import Any

from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from cluster.api.application import create_application
from cluster.config import Wiring, parse_config
from cluster.offload import keep_loop_quick
from cluster.pipeline import Pipeline
from cluster.telemetry.metrics import QUEUED_TOKENS
from deployments import wirings
from deployments.failures import failures_told
from deployments.placements import placements
from deployments.proxies import Proxies, from_clients
from deployments.reporting import BacklogReporter
from deployments.stage import Stage
from deployments.updates import version_of


class Ingress(Stage):
    """Serve ingress. In the fused wiring it hosts all stages and the handles are None."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        args: dict[str, Any],
        tokenizer: DeploymentHandle | None = None,
        encoders: dict[str, DeploymentHandle] | None = None,
        pooler: DeploymentHandle | None = None,
    ) -> None:
        with failures_told("the Ingress"):
            config = parse_config(args)
            if config.wiring is Wiring.SPLIT and tokenizer is not None and encoders is not None and pooler is not None:
                self._wiring = await wirings.split(config, version_of(args), tokenizer, encoders, pooler)
            else:
                self._wiring = await wirings.fused(config)
            self._pipeline = Pipeline(config, self._wiring.descriptions, self._wiring.senders)
            self.start_reporting(self._set_gauges, config.tracing)
            self.at_end(self._wiring.close)
            self.at_end(placements.close)
            self._proxies = Proxies()
            self.at_end(self._proxies.stop)
            if encoders is not None:
                self.at_end(BacklogReporter(encoders, self._pipeline.stages.backlog).stop)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Serve once the constructor has run."""
        with failures_told("the HTTP application"):
            application = create_application(self._pipeline, self._wiring.check_ready)
        keep_loop_quick()
        return from_clients(application, self._proxies)

    def _queued_tokens(self) -> dict[str, int]:
        return self._pipeline.stages.queued_tokens

    def _set_gauges(self) -> None:
        for encoder, tokens in self._queued_tokens().items():
            QUEUED_TOKENS.labels(encoder).set(tokens)

    def check_health(self) -> None:
        """Raise when this process can no longer do its work; Serve replaces it after three failures in a row."""
        self._wiring.check_health()

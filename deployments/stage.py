"""What every deployment's replica does besides its work: metrics, log lines, settings that change while it runs."""

from __future__ import annotations

from collections.abc import Callable

from cluster.config import TracingConfig
from cluster.live import StageSettings, parse_settings
from cluster.telemetry.tracing import TRACING
from deployments.listening import listen_where_the_node_does
from deployments.logs import join_serve_logs
from deployments.metrics import MetricsFlush, RayExporter
from deployments.reporting import BusyMeter


class Stage:
    """Base of Ingress, Tokenizer and Pooler; ``Encoder`` reports measures of its own."""

    def start_reporting(
        self, set_gauges: Callable[[], None] = lambda: None, tracing: TracingConfig | None = None
    ) -> None:
        """Begin to export metrics and, where it is asked for, traces; called at the end of a constructor.

        Args:
            set_gauges: sets the gauges that are read rather than counted.
        """
        listen_where_the_node_does()
        join_serve_logs()
        self._settings = StageSettings()
        self._busy = BusyMeter()
        if tracing is not None and tracing.exporter is not None:
            TRACING.start(tracing.exporter, tracing.sample_share)
        self._metrics = MetricsFlush(RayExporter(), set_gauges)

    def reconfigure(self, user_config: object) -> None:
        """Take the YAML's ``user_config``; Serve calls this at the start and whenever it changes.

        Raises:
            ConfigError: it is not valid.
        """
        self._settings = parse_settings(StageSettings, user_config)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what ``deployments.autoscaling.BusyPolicy`` reads."""
        return {"busy_share": self._busy.share(), "target_busy_share": self._settings.target_busy_share}

"""What every deployment's replica does besides its work: metrics, log lines, settings that change while it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from cluster.config import TracingConfig
from cluster.live import StageSettings, parse_settings
from cluster.telemetry.tracing import TRACING
from deployments.listening import listen_where_the_node_does
from deployments.logs import join_serve_logs
from deployments.metrics import MetricsFlush, RayExporter
from deployments.reporting import BusyMeter


class Stage:
    """Base of all deployments; ``Encoder`` reports measures of its own."""

    _ends: ExitStack | None = None

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
        self._ends = ExitStack()
        # The first to begin is the last to end: what the others count at their end is sent, too.
        self.at_end(MetricsFlush(RayExporter(), set_gauges).stop)
        if tracing is not None and tracing.exporter is not None:
            TRACING.start(tracing.exporter, tracing.sample_share)
            self.at_end(TRACING.stop)

    def at_end(self, end: Callable[[], None]) -> None:
        """Have ``end`` called when the replica is stopped, before those that were given earlier, whatever the others raise."""
        assert self._ends is not None
        self._ends.callback(end)

    def __del__(self) -> None:
        """Serve calls it at every orderly stop, when the last request has been answered; a second call does nothing."""
        if self._ends is not None:
            self._ends.close()

    def reconfigure(self, user_config: object) -> None:
        """Take the YAML's ``user_config``; Serve calls this at the start and whenever it changes.

        Raises:
            ConfigError: it is not valid.
        """
        self._settings = parse_settings(StageSettings, user_config)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what ``deployments.autoscaling.BusyPolicy`` reads."""
        return {"busy_share": self._busy.share(), "target_busy_share": self._settings.target_busy_share}

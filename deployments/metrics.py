"""Carries this process's metrics to Ray, which exports them to Prometheus with the prefix ``ray_``.

The stages count without Ray (``cluster.telemetry.metrics``); a thread reads the registry every ``FLUSH_S`` seconds and sends
what has changed. A histogram goes over as its series of buckets, count and
sum, which is how Prometheus reads one; Ray's own histogram would want every observation by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry, Metric
from ray.serve import metrics as serve_metrics

from cluster.telemetry.metrics import BACKGROUND_FAILURES, REGISTRY

logger = logging.getLogger("poolhouse")

FLUSH_S = 5.0
"""Below half the time after which Ray forgets a gauge that nobody renews (20 s)."""

_STOP_WITHIN_S = 5.0


class Exporter(Protocol):
    """Takes one value of one series at a time."""

    def count(self, name: str, description: str, labels: Mapping[str, str], increase: float) -> None:
        """Add to a counter; ``name`` is without ``_total``."""
        ...

    def set(self, name: str, description: str, labels: Mapping[str, str], value: float) -> None:
        """Set a gauge, or one series of a histogram."""
        ...


class RayExporter:
    """Makes Ray's instruments as they are needed; Serve adds the labels deployment, replica and application."""

    def __init__(self) -> None:
        self._counters: dict[str, serve_metrics.Counter] = {}
        self._gauges: dict[str, serve_metrics.Gauge] = {}

    def count(self, name: str, description: str, labels: Mapping[str, str], increase: float) -> None:
        """See ``Exporter.count``."""
        if name not in self._counters:
            self._counters[name] = serve_metrics.Counter(name, description, tuple(labels))
        self._counters[name].inc(increase, dict(labels))

    def set(self, name: str, description: str, labels: Mapping[str, str], value: float) -> None:
        """See ``Exporter.set``."""
        if name not in self._gauges:
            self._gauges[name] = serve_metrics.Gauge(name, description, tuple(labels))
        self._gauges[name].set(value, dict(labels))


class MetricsFlush:
    """Sends a registry to an exporter every few seconds, from a thread of its own, and once more when it is stopped.

    What fails is logged, counted and tried again with the next flush, and keeps nothing else from being sent.

    Args:
        before: called before each flush, to set gauges that are read rather than counted.
    """

    def __init__(
        self, exporter: Exporter, before: Callable[[], None] = lambda: None, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._exporter = exporter
        self._before = before
        self._registry = registry
        self._sent: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what has been counted since the last flush, and end the thread."""
        self._stop.set()
        self._thread.join(_STOP_WITHIN_S)
        if self._thread.is_alive():
            logger.error("the last metrics were not sent within %g s", _STOP_WITHIN_S)

    def flush(self) -> None:
        """Send counters that have grown, and every gauge in use: Ray forgets one that is not renewed."""
        self._try("gauges", self._before)
        for family in self._registry.collect():
            self._try(family.name, partial(self._send, family))

    @staticmethod
    def _try(what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            BACKGROUND_FAILURES.labels("metrics").inc()
            logger.exception("metrics: %s could not be sent; they are tried again in %g s", what, FLUSH_S)

    def _send(self, family: Metric) -> None:
        samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        if family.type == "counter":
            for sample in samples:
                self._count(family.name, family.documentation, sample.labels, sample.value)
        elif family.type == "gauge" or any(sample.value for sample in samples):
            for sample in samples:
                self._exporter.set(sample.name, family.documentation, sample.labels, sample.value)

    def _count(self, name: str, description: str, labels: Mapping[str, str], value: float) -> None:
        key = (name, tuple(sorted(labels.items())))
        increase = value - self._sent.get(key, 0.0)
        if increase > 0:
            self._exporter.count(name, description, labels, increase)
            self._sent[key] = value

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self._try("all", self.flush)
        self._try("all", self.flush)

"""The way of the metrics to Ray: nothing that fails on it ends it, and a replica's last counts go it, too."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from cluster.telemetry import metrics as own
from deployments import metrics
from deployments.metrics import MetricsFlush

WITHIN_S = 20.0


class Exporter:
    """Notes what it gets, and fails for the names that it is told."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}
        self.gauges: dict[str, float] = {}
        self.fails_for: set[str] = set()
        self.flushed = threading.Semaphore(0)

    def count(self, name: str, description: str, labels: Mapping[str, str], increase: float) -> None:
        self.flushed.release()
        if name in self.fails_for:
            raise ValueError("a label that Ray does not take")
        self.counts[name] = self.counts.get(name, 0.0) + increase

    def set(self, name: str, description: str, labels: Mapping[str, str], value: float) -> None:
        if name in self.fails_for:
            raise ValueError("a label that Ray does not take")
        self.gauges[name] = value


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FLUSH_S", 0.001)


def failures() -> float:
    return own.REGISTRY.get_sample_value("poolhouse_background_failures_total", {"work": "metrics"}) or 0.0


def test_what_was_counted_since_the_last_flush_is_sent_at_the_end(
    exporter: Exporter, registry: CollectorRegistry
) -> None:
    counter, gauge = Counter("done", "d", registry=registry), Gauge("waits", "w", registry=registry)
    flush = MetricsFlush(exporter, lambda: gauge.set(4), registry)
    counter.inc(3)
    flush.stop()
    assert exporter.counts == {"done": 3}
    assert exporter.gauges == {"waits": 4}
    assert not flush._thread.is_alive()
    flush.stop()
    assert exporter.counts == {"done": 3}


@pytest.mark.usefixtures("frequent")
def test_a_failure_is_counted_and_what_it_held_up_is_sent_later_and_once(
    exporter: Exporter, registry: CollectorRegistry
) -> None:
    counter = Counter("done", "d", registry=registry)
    before = failures()
    exporter.fails_for = {"done"}
    counter.inc(5)
    flush = MetricsFlush(exporter, registry=registry)
    for _ in range(2):
        assert exporter.flushed.acquire(timeout=WITHIN_S)
    exporter.fails_for = set()
    assert exporter.flushed.acquire(timeout=WITHIN_S)
    flush.stop()
    assert exporter.counts == {"done": 5}
    assert failures() >= before + 2


@pytest.mark.usefixtures("frequent")
def test_gauges_that_cannot_be_read_and_metrics_that_ray_refuses_keep_no_other_back(
    exporter: Exporter, registry: CollectorRegistry
) -> None:
    refused, taken = Counter("a_refused", "d", registry=registry), Counter("b_taken", "d", registry=registry)
    exporter.fails_for = {"a_refused"}

    def unreadable() -> None:
        raise RuntimeError("no queue yet")

    refused.inc()
    taken.inc()
    flush = MetricsFlush(exporter, unreadable, registry)
    for _ in range(3):
        assert exporter.flushed.acquire(timeout=WITHIN_S)
    flush.stop()
    assert exporter.counts == {"b_taken": 1}


def test_a_flush_that_does_not_come_back_does_not_hold_up_the_end(
    exporter: Exporter, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_STOP_WITHIN_S", 0.0)
    release = threading.Event()
    flush = MetricsFlush(exporter, lambda: assert_true(release.wait(WITHIN_S)), registry)
    flush.stop()
    assert flush._thread.is_alive()
    release.set()
    flush._thread.join(WITHIN_S)
    assert not flush._thread.is_alive()


def assert_true(value: bool) -> None:
    assert value

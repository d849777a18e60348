"""The end of a replica, as Serve calls it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from cluster.config import TracingConfig
from cluster.telemetry.tracing import TRACING
from deployments import stage
from deployments.stage import Stage
from tests.support.traces import finished_spans


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was ended, in order."""
    names: list[str] = []

    class Flush:
        def __init__(self, *arguments: object) -> None:
            pass

        def stop(self) -> None:
            names.append("metrics")

    monkeypatch.setattr(stage, "MetricsFlush", Flush)
    monkeypatch.setattr(stage, "RayExporter", CollectorRegistry)
    return names


def test_all_that_was_begun_is_ended_once_and_the_metrics_last(ended: list[str]) -> None:
    made = Stage()
    made.start_reporting(tracing=TracingConfig(exporter="tests.support.traces:in_memory"))
    made.at_end(lambda: ended.append("engine"))
    made.at_end(lambda: ended.append("reports"))
    with TRACING.span("last", None):
        pass
    made.__del__()
    assert ended == ["reports", "engine", "metrics"]
    assert not TRACING.on
    assert [span.name for span in finished_spans()] == ["last"]
    made.__del__()
    assert ended == ["reports", "engine", "metrics"]


def test_one_end_that_fails_keeps_no_other_from_its_turn(ended: list[str]) -> None:
    made = Stage()
    made.start_reporting()

    def fail() -> None:
        raise RuntimeError("broken")

    made.at_end(lambda: ended.append("engine"))
    made.at_end(fail)
    with pytest.raises(RuntimeError, match="broken"):
        made.__del__()
    assert ended == ["engine", "metrics"]


def test_a_replica_whose_constructor_failed_has_nothing_to_end() -> None:
    Stage().__del__()

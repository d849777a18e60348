"""The metrics: their names are a promise, and requests are counted under them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cluster.telemetry.metrics import REGISTRY
from tests.support.pipelines import fake_config, http_client, local_pipeline

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "metrics.md"
# Renaming a metric or a label breaks dashboards and alerts of every operator.
STABLE = {
    "poolhouse_requests": {"path", "model", "pooling", "status", "api_key"},
    "poolhouse_request_seconds": {"path"},
    "poolhouse_refusals": {"path", "code"},
    "poolhouse_items": {"model", "pooling"},
    "poolhouse_tokens": {"model", "pooling"},
    "poolhouse_truncated_items": {"model", "pooling"},
    "poolhouse_reused_items": {"source"},
    "poolhouse_queue_seconds": {"model", "pooling"},
    "poolhouse_queued_tokens": {"encoder"},
    "poolhouse_retries": {"stage"},
    "poolhouse_background_failures": {"work"},
    "poolhouse_pending_tokens": {"encoder"},
    "poolhouse_encode_seconds": set(),
    "poolhouse_golden_mismatches": {"encoder"},
    "poolhouse_batch_fill_ratio": set(),
}


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_names_and_labels_are_those_that_are_promised() -> None:
    declared = {
        metric._name: set(metric._labelnames)
        for metric in set(REGISTRY._collector_to_names)
        if isinstance(metric, Counter | Gauge | Histogram)
    }
    assert declared == STABLE


def test_the_documentation_lists_every_metric_with_its_labels() -> None:
    rows = re.findall(r"^\| `(poolhouse_\w+?)(?:_total)?(\{.*\})?` \|", DOCUMENTATION.read_text(), re.M)
    assert {name: set(labels.strip("{}").split(",")) - {""} for name, labels in rows} == STABLE
    assert len(rows) == len(STABLE)


async def test_answers_are_counted_by_path_route_and_status() -> None:
    route = {"model": "fake", "pooling": "mean"}
    labels = {"path": "/v1/embeddings", "status": "200", "api_key": "", **route}
    before = value("poolhouse_requests_total", **labels), value("poolhouse_tokens_total", **route)
    with local_pipeline(fake_config()) as local:
        async with http_client(local) as client:
            answer = await client.post("/v1/embeddings", json={"input": ["one two", "three"], "model": "fake"})
    assert value("poolhouse_requests_total", **labels) == before[0] + 1
    assert value("poolhouse_tokens_total", **route) == before[1] + answer.json()["usage"]["total_tokens"]


async def test_refusals_are_counted_by_code() -> None:
    labels = {"path": "/v1/embeddings", "code": "model_not_found"}
    before = value("poolhouse_refusals_total", **labels)
    with local_pipeline(fake_config()) as local:
        async with http_client(local) as client:
            await client.post("/v1/embeddings", json={"input": "a", "model": "unheard-of"})
    assert value("poolhouse_refusals_total", **labels) == before + 1


async def test_cut_items_are_counted() -> None:
    route = {"model": "short", "pooling": "mean"}
    before = value("poolhouse_truncated_items_total", **route)
    body = {"input": ["word " * 50, "short"], "model": "short", "truncate": "end"}
    with local_pipeline(fake_config()) as local:
        async with http_client(local) as client:
            assert (await client.post("/v1/embeddings", json=body)).status_code == 200
    assert value("poolhouse_truncated_items_total", **route) == before + 1


async def test_items_that_need_no_encoding_are_counted() -> None:
    before = value("poolhouse_reused_items_total", source="equal")
    with local_pipeline(fake_config()) as local:
        async with http_client(local) as client:
            assert (await client.post("/v1/embeddings", json={"input": ["same", "same", "other"]})).status_code == 200
    assert value("poolhouse_reused_items_total", source="equal") == before + 1


async def test_a_key_is_counted_by_its_id_and_never_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_KEYS", "search:sk-secret")
    config = fake_config(api_keys={"environment": "TELEMETRY_KEYS"})
    with local_pipeline(config) as local:
        async with http_client(local, headers={"authorization": "Bearer sk-secret"}) as client:
            assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 200
    values = {label for family in REGISTRY.collect() for sample in family.samples for label in sample.labels.values()}
    assert "search" in values
    assert not any("sk-secret" in label for label in values)


class Recorder:
    """An exporter that remembers."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, dict[str, str], float]] = []
        self.gauges: dict[str, float] = {}

    def count(self, name: str, description: str, labels: Mapping[str, str], increase: float) -> None:
        self.counted.append((name, dict(labels), increase))

    def set(self, name: str, description: str, labels: Mapping[str, str], value: float) -> None:
        self.gauges[name + "".join(labels.values())] = value


def test_a_flush_sends_what_counters_have_grown_by_and_all_gauges() -> None:
    # Only deployments/ imports Ray, whose import warns.
    pytest.importorskip("ray")
    from deployments.metrics import MetricsFlush

    registry = CollectorRegistry()
    counter = Counter("jobs", "", ("kind",), registry=registry)
    gauge = Gauge("level", "", registry=registry)
    histogram = Histogram("seconds", "", registry=registry, buckets=(1.0, 2.0))
    recorder = Recorder()
    flush = MetricsFlush(recorder, lambda: gauge.set(7), registry)
    try:
        flush.flush()
        assert recorder.counted == []
        assert recorder.gauges == {"level": 7.0}
        counter.labels("a").inc(3)
        flush.flush()
        counter.labels("a").inc(2)
        histogram.observe(1.5)
        flush.flush()
        flush.flush()
    finally:
        flush.stop()
    assert recorder.counted == [("jobs", {"kind": "a"}, 3.0), ("jobs", {"kind": "a"}, 2.0)]
    assert recorder.gauges["seconds_bucket1.0"] == 0.0
    assert recorder.gauges["seconds_bucket2.0"] == 1.0
    assert recorder.gauges["seconds_count"] == 1.0
    assert recorder.gauges["seconds_sum"] == 1.5

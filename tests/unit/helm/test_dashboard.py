"""The Grafana dashboard shows metrics that exist, and all of them."""

from __future__ import annotations

import json
import re
from typing import Any

from cluster.telemetry.metrics import REGISTRY
from tests.unit.helm.chart import CHART

DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards" / "poolhouse.json").read_text(encoding="utf-8"))
# Ray's own name → labels.
RAY_METRICS = {
    "ray_serve_replica_processing_queries": {"deployment", "application"},
    "ray_serve_deployment_error_counter_total": {"deployment", "application"},
}


def exported() -> dict[str, tuple[str, set[str]]]:
    """Every series that Ray exports for Poolhouse → the metric that it belongs to, and its labels."""
    series: dict[str, tuple[str, set[str]]] = {}
    for metric in set(REGISTRY._collector_to_names):
        (family,) = metric.describe()
        labels = set(metric._labelnames)
        suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[family.type]
        for suffix in suffixes:
            more = {"le"} if suffix == "_bucket" else set()
            series[f"ray_{family.name}{suffix}"] = (family.name, labels | more)
    return series


OWN = exported()
METRICS = {**{name: labels for name, (_, labels) in OWN.items()}, **RAY_METRICS}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_panels_query_documented_metrics_and_every_one_of_them() -> None:
    used = {name for query in QUERIES for name in re.findall(r"\bray_[a-z_]+", query)}
    assert used <= set(METRICS)
    assert {OWN[name][0] for name in used & set(OWN)} == {metric for metric, _ in OWN.values()}


def test_queries_use_labels_that_their_metrics_have() -> None:
    assert QUERIES
    for query in QUERIES:
        allowed = set().union(*(METRICS[name] for name in re.findall(r"\bray_[a-z_]+", query)))
        selected = set(re.findall(r"([a-z_]+)=~?\"", query))
        grouped = {name.strip() for names in re.findall(r"by \(([^)]*)\)", query) for name in names.split(",")}
        assert selected | grouped <= allowed, query


def test_variables_read_labels_that_exist() -> None:
    queries = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert queries
    for query in queries:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
        assert found is not None
        assert found[2] in METRICS[found[1]]


def test_panels_have_distinct_ids_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells

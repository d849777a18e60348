"""The Grafana dashboard shows metrics that exist, and all of them."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.unit.helm.chart import CHART, ROOT

DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards" / "poolhouse.json").read_text(encoding="utf-8"))
# Name → labels. docs/operations.md lists the same; the last two are Ray's.
METRICS = {
    "ray_poolhouse_requests_total": {"route", "model", "pooling", "status", "api_key"},
    "ray_poolhouse_tokens_total": {"model", "pooling"},
    "ray_poolhouse_queue_seconds_bucket": {"le"},
    "ray_poolhouse_encode_seconds_bucket": {"le"},
    "ray_poolhouse_batch_fill_ratio": set(),
    "ray_poolhouse_cache_hits_total": set(),
    "ray_poolhouse_truncated_items_total": set(),
    "ray_poolhouse_queued_tokens": set(),
    "ray_serve_replica_processing_queries": {"deployment", "application"},
    "ray_serve_deployment_error_counter_total": {"deployment", "application"},
}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_panels_query_documented_metrics_and_every_one_of_them() -> None:
    used = {name for query in QUERIES for name in re.findall(r"\bray_[a-z_]+", query)}
    assert used == set(METRICS)


def test_queries_use_labels_that_their_metrics_have() -> None:
    for query in QUERIES:
        allowed = set().union(*(METRICS[name] for name in re.findall(r"\bray_[a-z_]+", query)))
        selected = set(re.findall(r"([a-z_]+)=~?\"", query))
        grouped = {name.strip() for names in re.findall(r"by \(([^)]*)\)", query) for name in names.split(",")}
        assert selected | grouped <= allowed, query


def test_variables_read_labels_that_exist() -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
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


def test_the_documentation_names_every_metric_of_poolhouse() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    own = {name.removeprefix("ray_").removesuffix("_bucket") for name in METRICS if "poolhouse" in name}
    assert {name for name in own if f"`{name}" not in text} == set()

"""The policies, fed with contexts as Serve gives them."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments import autoscaling
from deployments.autoscaling import BACKLOG, REPORTED, BusyPolicy, TokenPolicy, backlog_of_ingresses


def series(*values: float) -> list[Any]:
    return [SimpleNamespace(timestamp=float(index), value=value) for index, value in enumerate(values)]


@dataclass
class Context:
    """The part of Serve's AutoscalingContext that the policies read."""

    raw_metrics: dict[str, dict[str, list[Any]]] | None = field(default_factory=dict)
    total_num_requests: float = 0.0
    target_num_replicas: int = 1
    target_ongoing_requests: float = 10.0

    @property
    def config(self) -> Any:
        return SimpleNamespace(get_target_ongoing_requests=lambda: self.target_ongoing_requests)


def encoders(*pending: float, rate: float = 1000.0, busy: float = 0.0, wait_s: float = 1.0) -> dict[str, Any]:
    """The measures of one replica for each number of pending tokens."""
    names = [f"replica-{index}" for index in range(len(pending))]
    return {
        "pending_tokens": {name: series(0.0, tokens) for name, tokens in zip(names, pending, strict=True)},
        "busy_share": {name: series(busy, busy) for name in names},
        "tokens_per_s": {name: series(rate) for name in names},
        "target_wait_s": {name: series(wait_s) for name in names},
        "target_busy_share": {name: series(0.8) for name in names},
    }


@pytest.mark.parametrize(
    ("pending", "wanted"),
    [((1000.0,), 1.0), ((4000.0,), 4.0), ((2000.0, 2000.0), 4.0)],
    ids=["at the target", "one replica full", "over several replicas"],
)
def test_tokens_that_wait_ask_for_replicas(pending: tuple[float, ...], wanted: float) -> None:
    assert TokenPolicy()(Context(encoders(*pending)))[0] == pytest.approx(wanted)


def test_a_longer_target_asks_for_fewer_replicas() -> None:
    assert TokenPolicy()(Context(encoders(8000.0, wait_s=4.0)))[0] == pytest.approx(2.0)


@pytest.mark.parametrize(("pending", "admitted", "wanted"), [(1000.0, 3000.0, 3.0), (4000.0, 3000.0, 4.0)])
def test_the_account_of_the_ingresses_counts_once_and_what_is_in_the_replicas_is_the_least(
    pending: float, admitted: float, wanted: float
) -> None:
    measures = encoders(pending) | {
        BACKLOG + "a": {"replica-0": series(admitted)},
        REPORTED + "a": {"replica-0": series(5.0)},
    }
    assert TokenPolicy()(Context(measures))[0] == pytest.approx(wanted)


def test_of_one_ingress_the_newest_word_counts_and_several_ingresses_add_up() -> None:
    measures = {
        BACKLOG + "a": {"replica-0": series(9000.0), "replica-1": series(100.0)},
        REPORTED + "a": {"replica-0": series(5.0), "replica-1": series(6.0)},
        BACKLOG + "b": {"replica-0": series(50.0)},
        REPORTED + "b": {"replica-0": series(1.0)},
    }
    assert backlog_of_ingresses(measures) == 150.0


def test_a_steady_load_with_empty_queues_keeps_its_replicas() -> None:
    wanted, _ = TokenPolicy()(Context(encoders(10.0, 10.0, 10.0, 10.0, busy=0.8)))
    assert wanted == pytest.approx(4.0)


def test_nothing_to_do_asks_for_nothing() -> None:
    assert TokenPolicy()(Context(encoders(0.0, 0.0), target_num_replicas=2))[0] == 0.0


def test_a_replica_of_unknown_speed_with_work_is_kept() -> None:
    assert TokenPolicy()(Context(encoders(10.0, rate=0.0)))[0] == 1.0


@pytest.mark.parametrize("policy", [TokenPolicy, BusyPolicy])
@pytest.mark.parametrize("measures", [None, {}])
def test_before_anyone_has_reported_nothing_changes(policy: Any, measures: dict[str, Any] | None) -> None:
    assert policy()(Context(measures, target_num_replicas=3)) == (3.0, {})


def test_front_stages_scale_by_processor_time() -> None:
    measures = {
        "busy_share": {"a": series(0.6, 0.8), "b": series(0.7, 0.7)},
        "target_busy_share": {"a": series(0.35), "b": series(0.35)},
    }
    assert BusyPolicy()(Context(measures, target_num_replicas=2))[0] == pytest.approx(4.0)


def test_front_stages_scale_by_what_waits_where_the_processor_is_taken_by_others() -> None:
    measures = {"busy_share": {"a": series(0.1)}, "target_busy_share": {"a": series(0.5)}}
    assert BusyPolicy()(Context(measures, total_num_requests=30.0))[0] == pytest.approx(3.0)


def test_the_module_imports_the_standard_library_only() -> None:
    tree = ast.parse(Path(autoscaling.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert imported
    assert imported <= set(sys.stdlib_module_names)

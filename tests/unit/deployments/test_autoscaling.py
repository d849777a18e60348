"""The policies, fed with contexts as Serve gives them."""

from __future__ import annotations

import ast
import random
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


def rated(*rates: float, tokens: float, wait_s: float = 2.0, busy: float = 0.0) -> dict[str, Any]:
    """The measures of replicas with these speeds, all of ``tokens`` waiting at the first of them."""
    measures = encoders(tokens, *[0.0] * (len(rates) - 1), wait_s=wait_s, busy=busy)
    return measures | {"tokens_per_s": {f"replica-{index}": series(rate) for index, rate in enumerate(rates)}}


@pytest.mark.parametrize(
    "rates",
    [(10_000.0, 10_000.0), (10_000.0, 0.0), (10_000.0, 10_000.0, *[0.0] * 6), (8_000.0, 0.0, 12_000.0)],
    ids=["all", "one of two", "two of eight", "of unequal speed"],
)
def test_a_replica_that_has_not_measured_itself_does_not_count_as_one_that_does_nothing(
    rates: tuple[float, ...],
) -> None:
    assert TokenPolicy()(Context(rated(*rates, tokens=60_000.0)))[0] == pytest.approx(3.0)


def test_what_is_wanted_does_not_depend_on_replicas_that_know_nothing() -> None:
    chance = random.Random(6)
    for _ in range(300):
        known = [chance.uniform(10.0, 50_000.0) for _ in range(chance.randint(1, 8))]
        tokens, wait_s = chance.uniform(1.0, 1e7), chance.uniform(0.1, 30.0)
        wanted = TokenPolicy()(Context(rated(*known, tokens=tokens, wait_s=wait_s)))[0]
        assert tokens / (max(known) * wait_s) <= wanted * (1 + 1e-9)
        assert wanted <= tokens / (min(known) * wait_s) * (1 + 1e-9)
        mixed = known + [0.0] * chance.randint(1, 8)
        chance.shuffle(mixed)
        assert TokenPolicy()(Context(rated(*mixed, tokens=tokens, wait_s=wait_s)))[0] == pytest.approx(wanted)


def test_a_measured_speed_goes_before_one_that_was_told() -> None:
    measures = rated(10_000.0, 100.0, tokens=60_000.0)
    measures["has_measured"] = {"replica-0": series(1.0), "replica-1": series(0.0)}
    assert TokenPolicy()(Context(measures))[0] == pytest.approx(3.0)
    measures["has_measured"] = {"replica-0": series(0.0), "replica-1": series(0.0)}
    assert TokenPolicy()(Context(measures))[0] == pytest.approx(60_000.0 / (5_050.0 * 2.0))


@pytest.mark.parametrize("replicas", [1, 2, 8])
@pytest.mark.parametrize("tokens", [10.0, 60_000.0, 1e9])
def test_where_nobody_knows_a_speed_no_burst_runs_to_the_maximum(replicas: int, tokens: float) -> None:
    unknown = [0.0] * replicas
    assert TokenPolicy()(Context(rated(*unknown, tokens=tokens)))[0] == 1.0
    # Busy all the time, they get a quarter more at a time: busy share 1 over a target of 0.8.
    assert TokenPolicy()(Context(rated(*unknown, tokens=tokens, busy=1.0)))[0] == pytest.approx(replicas / 0.8)


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

"""Limits that contradict each other are found before they are run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import parse_config
from cluster.engine.fake import fake_facts
from deployments.contradictions import contradictions
from deployments.sizing import machines_with_gpus, sizing_lines
from deployments.transport import GRPC_LIMIT

CONFIGS = Path(__file__).parents[3] / "configs"
PROD: dict[str, Any] = yaml.safe_load((CONFIGS / "prod.yaml").read_text(encoding="utf-8"))

Change = Callable[[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]], object]


def faults(
    change: Change = lambda document, args, given: None, folder: Path = CONFIGS, dimensions: int = 16
) -> list[str]:
    document = copy.deepcopy(PROD)
    args = document["applications"][0]["args"]
    given = {each["name"]: each for each in document["applications"][0]["deployments"]}
    change(document, args, given)
    facts = dict.fromkeys(args["models"], replace(fake_facts(), dimensions=dimensions))
    return contradictions(document, parse_config(args), given, facts, folder)


@pytest.fixture(autouse=True)
def no_limit_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (GRPC_LIMIT, "RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_USE_GRPC_BY_DEFAULT"):
        monkeypatch.delenv(name, raising=False)


def test_the_production_configuration_has_none() -> None:
    assert faults() == []


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (
            lambda document, args, given: document["http_options"].update(request_timeout_s=60),
            ("request_timeout_s", "limits.timeout_s"),
        ),
        (
            lambda document, args, given: given["Ingress"].update(graceful_shutdown_timeout_s=20),
            ("graceful_shutdown_timeout_s", "limits.timeout_s"),
        ),
        (
            lambda document, args, given: args["encoders"]["rank"].update(context_tokens=4096),
            ("encoders.rank", "context_tokens", "micro_batch_tokens"),
        ),
        (
            lambda document, args, given: given["Encoder-rank"].update(max_ongoing_requests=31),
            ("Encoder-rank.max_ongoing_requests", "32"),
        ),
        (
            lambda document, args, given: given["Ingress"]["autoscaling_config"].update(max_replicas=9),
            ("Pooler.max_ongoing_requests", "72"),
        ),
        (
            lambda document, args, given: (
                given["Tokenizer"]["autoscaling_config"].update(min_replicas=1, max_replicas=1)
                or given["Tokenizer"].update(max_ongoing_requests=63)
            ),
            ("Tokenizer.max_ongoing_requests", "64"),
        ),
        (
            lambda document, args, given: args["encoders"]["rank"].update(slots=3),
            ("Encoder-rank.max_ongoing_requests", "96"),
        ),
        (
            lambda document, args, given: args["encoders"]["rank"].update(gpu_layers=0, threads=4),
            ("Encoder-rank.max_ongoing_requests", "128"),
        ),
        (
            lambda document, args, given: given["Encoder-rank"].update(user_config={"target_wait": 1}),
            ("Encoder-rank.user_config", "target_wait_s"),
        ),
        (
            lambda document, args, given: given["Pooler"].update(user_config={"target_busy_share": 7}),
            ("Pooler.user_config", "target_busy_share"),
        ),
        (
            lambda document, args, given: given["Pooler"]["autoscaling_config"].update(look_back_period_s=2),
            ("Pooler.autoscaling_config", "look_back_period_s", "metrics_interval_s"),
        ),
        (
            lambda document, args, given: given["Pooler"]["autoscaling_config"].update(
                policy={"policy_function": "deployments.autoscaling:TokenPolicy"}
            ),
            ("Pooler.autoscaling_config.policy", "BusyPolicy"),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_each_is_named_with_both_keys(change: Change, keys: tuple[str, ...]) -> None:
    found = [fault for fault in faults(change) if all(key in fault for key in keys)]
    assert len(found) == 1, faults(change)


def test_a_message_of_token_matrices_above_the_transport_s_limit_is_found(tmp_path: Path) -> None:
    (tmp_path / "serve.env").write_text(f"# a comment\n{GRPC_LIMIT}=100000\n", encoding="utf-8")
    (fault,) = faults(folder=tmp_path)
    assert "encoders.tokens" in fault
    assert str(8192 * 16 * 4) in fault


def test_the_environment_s_limit_goes_before_the_file_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GRPC_LIMIT, "100000")
    assert len(faults()) == 1


def test_where_nothing_sets_the_transport_s_limit_it_is_ray_s_default(tmp_path: Path) -> None:
    (fault,) = faults(folder=tmp_path, dimensions=1_024)
    assert "encoders.tokens" in fault
    assert str(4 * 1024 * 1024) in fault
    assert faults(folder=tmp_path, dimensions=64) == []


@pytest.mark.parametrize("variable", ["RAY_SERVE_USE_GRPC_BY_DEFAULT", "RAY_SERVE_THROUGHPUT_OPTIMIZED"])
def test_messages_that_do_not_go_by_grpc_have_no_limit(tmp_path: Path, variable: str) -> None:
    (tmp_path / "serve.env").write_text(f"{variable}=0\n", encoding="utf-8")
    assert faults(folder=tmp_path, dimensions=1_024) == []


def test_one_process_sends_itself_no_messages(tmp_path: Path) -> None:
    assert faults(lambda document, args, given: args.update(wiring="fused"), tmp_path, dimensions=1_024) == []


@pytest.mark.parametrize(
    ("shares", "machines"), [([], 0), ([0.5, 0.5, 0.25, 0.25], 2), ([0.25] * 4 + [0.5] * 2, 2), ([1.0, 2.0, 0.5], 4)]
)
def test_machines_are_counted_by_how_shares_fit(shares: list[float], machines: int) -> None:
    assert machines_with_gpus(shares) == machines


def test_the_plan_adds_up_replicas_processors_and_gpus() -> None:
    given = {each["name"]: each for each in PROD["applications"][0]["deployments"]}
    lines = sizing_lines(list(given), given, {"Encoder-vectors": 3_000_000_000})
    assert lines[-2].startswith("  at least: 10 replicas, 10 CPUs, 1.5 GPUs (2 machine")
    assert "6.0 GB" in lines[-2]
    assert lines[-1].startswith("  at most: 40 replicas, 40 CPUs, 7 GPUs (7 machine")


def test_the_plan_has_room_for_the_second_copy_of_a_model_that_tries_inputs_alone() -> None:
    given = {each["name"]: each for each in PROD["applications"][0]["deployments"]}
    lines = sizing_lines(list(given), given, {"Encoder-vectors": 3_000_000_000}, isolates=True)
    assert "6.0 GB in encoders, 12.0 GB while each of them tries an input alone" in lines[-2]

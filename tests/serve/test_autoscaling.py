"""Autoscaling by tokens on a running cluster: the fake engine, with a cost for each token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from benchmarks.autoscaling import document, drive
from tests.support.clusters import ServeCluster, allows_metrics_interval, serve_cluster, wait_until

pytestmark = [pytest.mark.serve, pytest.mark.timeout(240), allows_metrics_interval]

ENCODER = "Encoder-encoder"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServeCluster]:
    with serve_cluster() as started:
        yield started


def ask(cluster: ServeCluster) -> httpx.Response:
    return httpx.post(f"{cluster.url}/v1/embeddings", json={"input": "one two three"}, timeout=60)


def encoder_of(config: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = config["applications"][0]["deployments"][-1]
    return entry


def test_a_step_of_load_adds_replicas_and_its_end_takes_them_away(cluster: ServeCluster) -> None:
    config = document("fake", max_replicas=4)
    encoder_of(config)["autoscaling_config"]["downscale_delay_s"] = 2
    cluster.deploy(config)
    assert ask(cluster).status_code == 200
    run = asyncio.run(drive(cluster, 3000.0, step_s=14.0, within_s=90.0))
    assert set(run.statuses) == {200}
    counts = [sample.replicas for sample in run.samples]
    assert max(counts) == 4
    assert 1 in counts[counts.index(4) :]


def test_settings_and_bounds_change_without_a_restart(cluster: ServeCluster) -> None:
    config = document("fake", max_replicas=4)
    cluster.deploy(config)
    assert ask(cluster).status_code == 200
    before = cluster.replica_ids()
    encoder_of(config)["user_config"] = {"target_wait_s": 5.0}
    encoder_of(config)["autoscaling_config"] |= {"min_replicas": 2, "max_replicas": 3, "downscale_delay_s": 1}
    cluster.deploy(config)
    wait_until(lambda: cluster.replicas(ENCODER) == 2, 60, "the new minimum")
    assert before <= cluster.replica_ids(), "a replica was restarted"
    assert ask(cluster).status_code == 200


def test_the_first_request_of_a_sleeping_encoder_waits_for_it(cluster: ServeCluster) -> None:
    config = document("fake", min_replicas=0)
    encoder_of(config)["autoscaling_config"] |= {"downscale_delay_s": 1, "downscale_to_zero_delay_s": 1}
    cluster.deploy(config)
    wait_until(lambda: cluster.replicas(ENCODER) == 0, 60, "asleep")
    assert httpx.get(f"{cluster.url}/health", timeout=10).status_code == 200
    assert ask(cluster).status_code == 200
    assert cluster.replicas(ENCODER) == 1

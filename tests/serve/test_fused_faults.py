"""Faults of the fused wiring: its one process is replaced, and nobody waits for one that cannot answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from tests.chaos.cluster import Cluster, running, wait_until
from tests.chaos.engines import FAULTS, OUT_OF_MEMORY_ID, break_engine
from tests.chaos.experiments import disconnect, fake_args, under_load

pytestmark = [pytest.mark.serve, pytest.mark.timeout(240)]

_RATE_PER_S = 15.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(fake_args("fused", fake_seconds_per_token=1 / 2_000, fake_faults=FAULTS), {}) as started:
        yield started


def _is_well(cluster: Cluster) -> None:
    assert httpx.get(f"{cluster.url}/health", timeout=10).status_code == 200
    outcome = asyncio.run(under_load(cluster, _RATE_PER_S, lambda: None))
    assert outcome.statuses.keys() == {200}, outcome.bodies
    assert outcome.wrong == 0


def test_one_that_was_killed_comes_back(cluster: Cluster) -> None:
    process = cluster.kill("Ingress")
    cluster.wait_for_replicas("Ingress", 1, without=process, within_s=60)
    wait_until(cluster.answers, 60, lambda: "the new replica answers nothing")
    _is_well(cluster)


def test_one_whose_encoder_has_lost_its_thread_answers_at_once_and_is_replaced(cluster: Cluster) -> None:
    status, _ = asyncio.run(break_engine(cluster, "Ingress", OUT_OF_MEMORY_ID, within_s=60))
    assert status == 503
    _is_well(cluster)


def test_clients_that_leave_leave_nothing_behind(cluster: Cluster) -> None:
    asyncio.run(disconnect(cluster, 100))
    _is_well(cluster)

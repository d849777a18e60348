"""Short forms of ``make chaos``: what clients see while parts of a running cluster are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.chaos.cluster import Cluster, running
from tests.chaos.engines import FAULTS, OUT_OF_MEMORY_ID, break_engine
from tests.chaos.experiments import POISON_ID, disconnect, fake_args, hang, kill_replicas, under_load
from tests.chaos.front import kill_haproxy
from tests.chaos.load import Client
from tests.chaos.report import failures_s

pytestmark = [pytest.mark.serve, pytest.mark.timeout(240)]

_RATE_PER_S = 15.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    replicas = {"Tokenizer": 2, "Pooler": 2, "Encoder-e": 2}
    with running(fake_args(fake_seconds_per_token=1 / 2_000, fake_faults=FAULTS), replicas) as started:
        yield started


def test_a_killed_encoder_costs_no_client_anything(cluster: Cluster) -> None:
    losses = asyncio.run(kill_replicas(cluster, "Encoder-e", 1, _RATE_PER_S))
    assert losses.kills >= 1
    assert losses.outcome.statuses.keys() == {200}, losses.outcome.bodies
    assert losses.outcome.wrong == 0


def test_a_killed_haproxy_is_missed_for_less_than_two_seconds(cluster: Cluster) -> None:
    outcome = asyncio.run(kill_haproxy(cluster, _RATE_PER_S, more_s=3.0))
    (burst,) = failures_s(outcome) or [[0.0]]
    assert burst[-1] - burst[0] < 2.0
    assert outcome.finished_s[200][-1] > burst[-1]
    assert outcome.wrong == 0


def test_a_killed_controller_costs_no_client_anything(cluster: Cluster) -> None:
    outcome = asyncio.run(under_load(cluster, _RATE_PER_S, cluster.kill_controller))
    assert outcome.statuses.keys() == {200}, outcome.bodies
    assert outcome.wrong == 0


@pytest.mark.parametrize("deployment", ["Encoder-e", "Tokenizer"])
def test_a_hung_replica_costs_no_client_anything(cluster: Cluster, deployment: str) -> None:
    outcome = asyncio.run(hang(cluster, deployment, 3, _RATE_PER_S))
    assert outcome.statuses.keys() == {200}, outcome.bodies
    assert outcome.wrong == 0


def test_clients_that_leave_leave_nothing_behind(cluster: Cluster) -> None:
    asyncio.run(disconnect(cluster, 100))
    outcome = asyncio.run(under_load(cluster, _RATE_PER_S, lambda: None))
    assert outcome.statuses.keys() == {200}, outcome.bodies


def test_an_input_that_kills_encoders_is_refused_alone(cluster: Cluster) -> None:
    async def ask() -> tuple[tuple[int, bytes], int]:
        client = Client(cluster.port)
        deadly = await client.post({"input": [[5], [POISON_ID], [7]]})
        innocent, _ = await client.post({"input": [[5], [7]]})
        client.close()
        return deadly, innocent

    (status, content), innocent = asyncio.run(ask())
    assert status == 422
    assert b"input[1]" in content
    assert innocent == 200


def test_a_replica_whose_encoder_has_lost_its_thread_answers_at_once_and_is_replaced(cluster: Cluster) -> None:
    status, _ = asyncio.run(break_engine(cluster, "Encoder-e", OUT_OF_MEMORY_ID, within_s=60))
    # No other replica has room for it either, and to be without memory is no proof against a text.
    assert status == 503
    outcome = asyncio.run(under_load(cluster, _RATE_PER_S, lambda: None))
    assert outcome.statuses.keys() == {200}, outcome.bodies

"""Probes of replicas that are not to be trusted."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from deployments import placements
from deployments.placements import Placements, answers


class _Replica:
    """Its probe fails as often as it is told, in a way of its own."""

    def __init__(self, *failures: Exception) -> None:
        self.replica_id = SimpleNamespace(unique_id="replica")
        self._failures = list(failures)

    async def get_queue_len(self, *, deadline_s: float) -> int:
        if self._failures:
            raise self._failures.pop()
        return 1


async def test_a_probe_that_fails_in_a_way_of_its_own_is_no_answer() -> None:
    replica = _Replica(ValueError("no such method"))
    assert not await answers(replica)
    assert await answers(replica)


async def test_a_replica_whose_probe_failed_in_a_way_of_its_own_is_probed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placements, "_PROBE_PERIOD_S", 0.001)
    noted = Placements()
    replica = _Replica(ValueError("no such method"), KeyError("replica"))
    noted.suspect(replica)
    assert noted.trusted([replica]) == []
    async with asyncio.timeout(30):
        await asyncio.gather(*noted._probes)
    assert noted.trusted([replica]) == [replica]


async def test_its_end_ends_the_probes() -> None:
    noted = Placements()
    noted.suspect(_Replica())
    (probe,) = noted._probes
    noted.close()
    await asyncio.gather(probe, return_exceptions=True)
    assert probe.cancelled()


async def test_a_replica_whose_encoder_has_ended_gets_nothing_more_though_it_answers_probes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placements, "_PROBE_PERIOD_S", 0.001)
    noted = Placements()
    probed = asyncio.Event()

    class Answering(_Replica):
        probes = 0

        async def get_queue_len(self, *, deadline_s: float) -> int:
            self.probes += 1
            if self.probes == 3:
                probed.set()
            return 1

    replica = Answering()
    noted.suspect(replica, ended=True)
    async with asyncio.timeout(30):
        await probed.wait()
    assert noted.trusted([replica]) == []
    noted.close()
    await asyncio.gather(*noted._probes, return_exceptions=True)

"""What a running server opens, and that two of them on one machine do not meet."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import FAKE_ARGS, STARTS_WITHIN_S, Cluster
from tests.support.serve_run import application, serve_run

pytestmark = [pytest.mark.serve, pytest.mark.timeout(240)]


def test_no_other_machine_reaches_anything_of_a_server_for_this_one(cluster: Cluster) -> None:
    found = cluster.run.listeners()
    assert httpx.URL(cluster.run.url).port in {listener.port for listener in found}
    # Ray's servers, Serve's and HAProxy: fewer would be the test's fault.
    assert len(found) > 10
    assert [f"{each.address}:{each.port}" for each in found if not each.only_from_here] == []


def test_two_servers_with_two_configurations_serve_side_by_side_and_end_alone(cluster: Cluster, tmp_path: Path) -> None:
    other = {
        **FAKE_ARGS,
        "models": {"other": {"source": "fake"}},
        "encoders": {"o": {"model": "other", "engine": "fake"}},
    }
    with serve_run(tmp_path, [application("other", "/", {"wiring": "fused", **other}, ["Ingress"])]) as second:
        second.wait_for(second.answers, STARTS_WITHIN_S)
        assert _models(second.url) == ["other"]
        for url in cluster.urls.values():
            assert "fake" in _models(url)
        shared = {(each.address, each.port) for each in second.listeners()} & {
            (each.address, each.port) for each in cluster.run.listeners()
        }
        assert not shared
        second.end()
    for url in cluster.urls.values():
        assert "fake" in _models(url)


def _models(url: str) -> list[str]:
    return [model["id"] for model in httpx.get(f"{url}/v1/models", timeout=20).json()["data"]]

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.serve.conftest import FAKE_ARGS, STARTS_WITHIN_S
from tests.support.serve_run import application, serve_run

pytestmark = [pytest.mark.serve, pytest.mark.timeout(180)]


def test_nothing_is_left_of_a_server_that_is_terminated(tmp_path: Path) -> None:
    applications = [application("fused", "/", {"wiring": "fused", **FAKE_ARGS}, ["Ingress"])]
    with serve_run(tmp_path, applications) as run:
        run.wait_for(run.answers, STARTS_WITHIN_S)
        run.end(signal.SIGTERM)

"""A client whose server lives in this process: the whole application over a local model, without Ray and without a socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from cluster.api.application import create_application
from cluster.client import Client, Retries
from cluster.config import PoolhouseConfig
from cluster.fused import fused_stages
from cluster.pipeline import Pipeline


@contextmanager
def in_process_client(config: PoolhouseConfig) -> Iterator[Client]:
    """Load a configuration's models and yield a client that is answered by them.

    Raises:
        ModelLoadError: a model cannot be had or does not load.
    """
    with fused_stages(config) as stages:
        application = create_application(Pipeline(config, stages.descriptions, stages.senders), stages.check_ready)
        # Nothing between the two can be lost, so nothing is sent twice.
        with Client(
            "http://in-process", retries=Retries(count=0), transport=httpx.ASGITransport(app=application)
        ) as client:
            yield client

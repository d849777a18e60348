from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.api.application import create_application
from cluster.cli import embed, rerank, tokenize
from cluster.config import PoolhouseConfig
from tests.support.pipelines import fake_config, local_pipeline
from tests.support.servers import served


@pytest.fixture
def url() -> Iterator[str]:
    with local_pipeline(fake_config()) as local, served(create_application(local.pipeline, local.check_ready)) as found:
        yield found


@pytest.fixture
def local_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in this process without ``--url`` is the fake engine, under the model and fingerprint of the server's."""

    def config(options: object, pooling: object = None) -> PoolhouseConfig:
        args = fake_config()
        return PoolhouseConfig(models={"fake": args.models["fake"]}, encoders={"wide": args.encoders["wide"]})

    for module in (embed, rerank, tokenize):
        monkeypatch.setattr(module, "local_config", config)

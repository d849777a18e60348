from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.api.application import create_application
from tests.support.pipelines import fake_config, local_pipeline
from tests.support.servers import served


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """A server on a free port, with the fake models; the key ``sk-test`` opens it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_CLIENT_KEYS", "tests:sk-test")
        config = fake_config(api_keys={"environment": "TEST_CLIENT_KEYS"})
        with local_pipeline(config) as local, served(create_application(local.pipeline, local.check_ready)) as url:
            yield url

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.support.pipelines import LocalPipeline, fake_config, http_client, local_pipeline


@pytest.fixture
def local() -> Iterator[LocalPipeline]:
    with local_pipeline(fake_config()) as opened:
        yield opened


@pytest.fixture
async def client(local: LocalPipeline) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(local) as opened:
        yield opened

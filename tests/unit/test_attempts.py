from __future__ import annotations

import pytest

from cluster.attempts import until_one_version
from cluster.errors import EngineError, VersionChanged
from cluster.types import VectorBatch
from tests.support.pipelines import MODEL, fake_config, http_client, local_pipeline


async def test_other_errors_pass_at_once() -> None:
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        raise EngineError("broken")

    with pytest.raises(EngineError):
        await until_one_version(attempt)
    assert attempts == 1


async def test_a_request_between_two_versions_is_prepared_again() -> None:
    with local_pipeline(fake_config()) as local:
        encode = local.pipeline.stages.senders.encode
        calls = 0

        async def first_of_another_version(name: str, batch: object) -> VectorBatch:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise VersionChanged("tokenized by the old version")
            return await encode(name, batch)  # type: ignore[arg-type]  # passed on as it came

        with local_pipeline(fake_config(), encode=first_of_another_version) as changing:
            async with http_client(changing) as client:
                answer = await client.post("/v1/embeddings", json={"input": "a text", "model": MODEL})
    assert answer.status_code == 200
    assert calls == 2

"""Binary vectors as clients get them: a bit is set where the number is above zero."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest

from cluster.types import TokenBatch, VectorBatch
from tests.support.pipelines import DIMENSIONS, fake_config, http_client, local_pipeline

GOLDEN = [-0.0396, 0.0062, -0.0745, -0.0390, 0.0046, 0.0003, -0.0850, 0.0399]
ZEROS = [0.0, -0.0] * 4


@pytest.mark.parametrize(
    ("output_type", "dtype", "expected"), [("ubinary", np.uint8, [77, 0]), ("binary", np.int8, [-51, -128])]
)
async def test_every_encoding_has_the_bits_of_the_golden_vector(
    output_type: str, dtype: type[np.generic], expected: list[int]
) -> None:
    with local_pipeline(fake_config()) as real:
        encode = real.stages.senders.encode

        async def golden(name: str, batch: TokenBatch) -> VectorBatch:
            found = await encode(name, batch)
            assert found.values.size == DIMENSIONS == len(GOLDEN + ZEROS)
            return replace(found, values=np.asarray(GOLDEN + ZEROS, dtype=np.float32))

        with local_pipeline(fake_config(), encode=golden) as local:
            async with http_client(local) as client:
                body = {"input": "a", "output_dtype": output_type}
                whole = await client.post("/v1/embeddings", json=body)
                cut = await client.post("/v1/embeddings", json={**body, "dimensions": 8})
                packed = await client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})
                raw = await client.post("/v1/embeddings", json=body, headers={"accept": "application/octet-stream"})
    assert whole.json()["data"][0]["embedding"] == expected
    assert cut.json()["data"][0]["embedding"] == expected[:1]
    printed = base64.b64decode(packed.json()["data"][0]["embedding"])
    assert np.frombuffer(printed, dtype=dtype).tolist() == expected
    table = np.load(io.BytesIO(raw.content))
    assert (table.dtype, table.tolist()) == (np.dtype(dtype), [expected])

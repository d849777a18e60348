"""The default model over the whole HTTP application, against the PyTorch model's ids and vectors (tests/data)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.config import parse_config
from cluster.models.package import packaged_path
from tests.support.pipelines import LocalPipeline, http_client, local_pipeline

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        not packaged_path("all-minilm-l6-v2", "f16").exists(),
        reason="the default model is not prepared; run: poolhouse models pull",
    ),
]

REFERENCE = np.load(Path(__file__).parent.parent / "data" / "minilm-reference.npz")
TEXTS: list[str] = REFERENCE["texts"].tolist()
IDS: list[list[int]] = json.loads(str(REFERENCE["ids"]))


@pytest.fixture(scope="module")
def minilm() -> Iterator[LocalPipeline]:
    config = parse_config(
        {
            "models": {"minilm": {"source": "package:all-minilm-l6-v2", "parse_special": True, "truncate": "end"}},
            "encoders": {"minilm": {"model": "minilm"}},
        }
    )
    with local_pipeline(config) as pipeline:
        yield pipeline


async def _embed(minilm: LocalPipeline, **body: Any) -> list[Any]:
    async with http_client(minilm) as client:
        answer = await client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    return [item["embedding"] for item in answer.json()["data"]]


def _cosines(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(got, axis=-1) * np.linalg.norm(wanted, axis=-1)
    return np.asarray((got * wanted).sum(axis=-1) / norms)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
async def test_vectors_match_pytorch(minilm: LocalPipeline, pooling: str) -> None:
    got = np.asarray(await _embed(minilm, input=TEXTS, pooling=pooling), dtype=np.float64)
    assert _cosines(got, REFERENCE[pooling]).min() >= 0.9999


@pytest.mark.parametrize("item", [0, 40, 41, 42])
async def test_token_matrices_match_pytorch(minilm: LocalPipeline, item: int) -> None:
    got = np.asarray((await _embed(minilm, input=TEXTS[item], pooling="none"))[0])
    wanted = REFERENCE[f"tokens_{item}"]
    assert got.shape == wanted.shape
    assert _cosines(got, wanted).min() >= 0.9999


async def test_token_ids_match_pytorch(minilm: LocalPipeline) -> None:
    async with http_client(minilm) as client:
        for text, wanted in list(zip(TEXTS, IDS, strict=True))[:-1]:
            answer = await client.post("/tokenize", json={"content": text, "add_special": True})
            assert answer.json()["tokens"] == wanted


async def test_a_cut_text_keeps_its_final_separator(minilm: LocalPipeline) -> None:
    by_text = np.asarray((await _embed(minilm, input=TEXTS[-1], pooling="last"))[0])
    by_ids = np.asarray((await _embed(minilm, input=IDS[-1], pooling="last"))[0])
    assert len(IDS[-1]) == 512
    np.testing.assert_array_equal(by_text, by_ids)


async def test_company_in_a_batch_changes_a_vector_by_less_than_a_millionth(minilm: LocalPipeline) -> None:
    together = np.asarray(await _embed(minilm, input=TEXTS), dtype=np.float64)
    for item in (0, 17, 42):
        alone = np.asarray((await _embed(minilm, input=TEXTS[item]))[0], dtype=np.float64)
        assert float(_cosines(together[item], alone)) >= 1 - 1e-6

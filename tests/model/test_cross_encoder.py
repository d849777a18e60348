"""A real cross-encoder over the whole HTTP application, against its PyTorch reference and the STS benchmark."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from cluster.config import parse_config
from tests.support.pipelines import LocalPipeline, http_client, local_pipeline

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODEL = SHARED / "models" / "minilm-stsb-cross-encoder-f16.gguf"
REFERENCE = SHARED / "models" / "minilm-stsb-cross-encoder-reference.csv"
STSB = SHARED / "data" / "stsb-en-dev.csv"

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        not MODEL.exists() or not REFERENCE.exists() or not STSB.exists(),
        reason=f"the cross-encoder, its reference or the STS benchmark is missing: {MODEL}, {REFERENCE}, {STSB}",
    ),
]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalPipeline]:
    config = parse_config(
        {
            "models": {
                "zero": {"source": str(MODEL)},
                "segments": {"source": str(MODEL), "token_types": "segments"},
            },
            "encoders": {
                "zero": {"model": "zero", "pooling": ["rank"], "micro_batch_tokens": 256},
                "segments": {"model": "segments", "pooling": ["rank"], "micro_batch_tokens": 256},
            },
        }
    )
    with local_pipeline(config) as opened:
        yield opened


async def _scores(local: LocalPipeline, model: str, firsts: list[str], seconds: list[str]) -> np.ndarray:
    async with http_client(local) as client:
        answer = await client.post("/score", json={"model": model, "text_1": firsts, "text_2": seconds}, timeout=100)
    assert answer.status_code == 200, answer.text
    return np.asarray([entry["score"] for entry in answer.json()["data"]])


@pytest.mark.parametrize(("model", "column"), [("zero", "logit"), ("segments", "logit_with_token_types")])
async def test_logits_are_pytorchs(local: LocalPipeline, model: str, column: str) -> None:
    with REFERENCE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    got = await _scores(local, model, [row["query"] for row in rows], [row["document"] for row in rows])
    np.testing.assert_allclose(got, [float(row[column]) for row in rows], rtol=0, atol=1e-2)


async def test_logits_and_usage_are_llama_servers(local: LocalPipeline) -> None:
    documents = {
        "The man is playing the guitar.": 2.1469,
        "A person plays an instrument.": -0.0815,
        "A woman is slicing an onion.": -3.3283,
        "A dog runs in the snow.": -3.3409,
    }
    body = {"model": "zero", "query": "A man is playing a guitar.", "documents": list(documents)}
    async with http_client(local) as client:
        answer = (await client.post("/v1/rerank", json=body)).json()
    assert [result["index"] for result in answer["results"]] == [0, 1, 2, 3]
    assert [result["relevance_score"] for result in answer["results"]] == pytest.approx(
        list(documents.values()), abs=1e-2
    )
    assert answer["usage"]["prompt_tokens"] == 67


async def test_it_ranks_the_sts_benchmark_as_its_authors_measured(local: LocalPipeline) -> None:
    with STSB.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    got = await _scores(local, "zero", [row[0] for row in rows], [row[1] for row in rows])
    assert 100 * spearmanr(got, [float(row[2]) for row in rows]).statistic == pytest.approx(86.20, abs=0.2)

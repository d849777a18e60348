"""Messages and answers above gRPC's limit, over a running ``serve run`` whose limit is low."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.types import PoolingType
from deployments.transport import GRPC_LIMIT
from tests.serve.conftest import FAKE_ARGS, STARTS_WITHIN_S
from tests.support.pipelines import expected_rows
from tests.support.serve_run import ServeRun, application, serve_run

pytestmark = [pytest.mark.serve, pytest.mark.timeout(240)]

# A text of 512 tokens has a matrix of 32 KiB, which prints as about 90 KB.
_LIMIT_BYTES = 24 * 1024


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeRun]:
    applications = [
        application("split", "/", {"wiring": "split", **FAKE_ARGS}, ["Ingress", "Tokenizer", "Pooler", "Encoder-fake"])
    ]
    with serve_run(tmp_path_factory.mktemp("serve"), applications, {GRPC_LIMIT: str(_LIMIT_BYTES)}) as started:

        def ready() -> bool:
            try:
                return httpx.get(f"{started.url}/health").status_code == 200
            except httpx.TransportError:
                return False

        started.wait_for(ready, STARTS_WITHIN_S)
        yield started


def _post(run: ServeRun, path: str, body: dict[str, Any]) -> Any:
    replicas = run.replicas()
    response = httpx.post(run.url + path, json=body, timeout=60)
    assert response.status_code == 200, response.text
    assert run.replicas().keys() == replicas.keys()
    return response.json()


def _check(answer: Any, texts: list[str], pooling: PoolingType) -> None:
    assert len(answer) == len(texts)
    for item, text in zip(answer, texts, strict=True):
        rows = np.asarray(item["embedding"], dtype=np.float32)
        np.testing.assert_array_equal(rows, expected_rows(text, pooling))


def test_token_matrices_of_many_texts_and_of_one_that_is_too_large_alone(run: ServeRun) -> None:
    texts = [f"word{number} " * (number * 12 + 1) for number in range(40)] + ["word " * 510]
    _check(_post(run, "/embedding", {"content": texts, "pooling": "none"}), texts, PoolingType.NONE)


def test_texts_that_are_too_large_for_one_message_and_one_that_is_too_large_alone(run: ServeRun) -> None:
    texts = [f"{number} " + "a" * 5_000 for number in range(20)] + ["b" * 50_000]
    answer = _post(run, "/embedding", {"content": texts, "pooling": "mean"})
    _check(answer, texts, PoolingType.MEAN)


def test_calls_whose_sizes_nobody_knows_in_advance(run: ServeRun) -> None:
    text = "word " * 20_000
    tokens = _post(run, "/tokenize", {"content": text, "with_pieces": True})["tokens"]
    assert len(tokens) == 20_000


def test_documents_of_a_rerank_request(run: ServeRun) -> None:
    documents = [f"word{number % 7} " * 300 for number in range(30)]
    results = _post(run, "/v1/rerank", {"query": "word3", "documents": documents, "strategy": "late_interaction"})
    assert len(results["results"]) == 30

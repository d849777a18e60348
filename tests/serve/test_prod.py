"""The production configuration starts on a machine without GPUs: logical ones are counted, the processor computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.clusters import ROOT, ServeCluster, allows_metrics_interval, load_config, serve_cluster, wait_until
from tests.support.ggufs import write_qwen3_embedding, write_qwen3_reranker

pytestmark = [pytest.mark.serve, pytest.mark.timeout(280), allows_metrics_interval]

KEY = "sk-prod"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeCluster]:
    folder = tmp_path_factory.mktemp("models")
    document = load_config(ROOT / "configs" / "prod.yaml")
    models: dict[str, Any] = document["applications"][0]["args"]["models"]
    models["qwen3-embedding-0.6b"]["source"] = str(write_qwen3_embedding(folder / "embedding.gguf").path)
    models["qwen3-reranker-0.6b"]["source"] = str(write_qwen3_reranker(folder / "reranker.gguf").path)
    # One line of a log at a time rather than a thousand, so that the test need not send so many requests.
    environment = {"POOLHOUSE_API_KEYS": f"tests:{KEY}", "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1"}
    with serve_cluster(cpus=16, gpus=4, **environment) as started:
        started.deploy(document, within_s=200)
        yield started


def embed(cluster: ServeCluster, **body: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.post(f"{cluster.url}/v1/embeddings", json=body, headers=headers, timeout=60)


def test_it_answers_vectors_on_the_route_of_their_pooling_type(cluster: ServeCluster) -> None:
    answer = embed(cluster, input=["The capital of China is Beijing.", "Gravity pulls."], input_type="query")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-poolhouse-model"] == "qwen3-embedding-0.6b"
    assert answer.headers["x-poolhouse-pooling"] == "last"
    vectors = np.asarray([item["embedding"] for item in answer.json()["data"]])
    assert vectors.shape == (2, 64)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 1.0])


def test_the_encoder_of_token_matrices_sleeps_until_somebody_asks(cluster: ServeCluster) -> None:
    assert cluster.replicas("Encoder-tokens") == 0
    answer = embed(cluster, input="The capital of China is Beijing.", pooling="none")
    assert answer.status_code == 200, answer.text
    assert np.asarray(answer.json()["data"][0]["embedding"]).shape == (answer.json()["usage"]["total_tokens"], 64)
    assert cluster.replicas("Encoder-tokens") == 1


def test_it_scores_pairs(cluster: ServeCluster) -> None:
    answer = embed(cluster, model="qwen3-reranker-0.6b", input=[[5, 6, 7, 8]], pooling="rank")
    assert answer.status_code == 200, answer.text
    scores = answer.json()["data"][0]["embedding"]
    assert sum(scores) == pytest.approx(1.0)


def test_two_replicas_of_every_stage_and_route_run_and_nobody_enters_without_a_key(cluster: ServeCluster) -> None:
    for deployment in ("Ingress", "Tokenizer", "Pooler", "Encoder-vectors", "Encoder-rank"):
        assert cluster.replicas(deployment) == 2
    assert httpx.post(f"{cluster.url}/v1/embeddings", json={"input": "a"}, timeout=30).status_code == 401


def test_log_lines_are_json_and_name_the_request(cluster: ServeCluster) -> None:
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": "request-of-the-log-test"}
    body = {"input": "too late", "timeout_s": 0.001}
    assert httpx.post(f"{cluster.url}/v1/embeddings", json=body, headers=headers, timeout=60).status_code == 504

    def lines() -> list[dict[str, Any]]:
        files = cluster.log_folder.glob("replica_poolhouse_Ingress_*.log")
        texts = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
        return [json.loads(line) for line in texts if "request-of-the-log-test" in line and "not ready" in line]

    wait_until(lambda: bool(lines()), 20, "the line of the request")
    (line,) = lines()
    assert line["levelname"] == "WARNING"
    assert line["deployment"] == "poolhouse_Ingress"
    assert line["request_id"] == "request-of-the-log-test"


def test_prometheus_finds_the_metrics_of_every_stage(cluster: ServeCluster) -> None:
    assert embed(cluster, input="counted").status_code == 200

    def scrape() -> str:
        return httpx.get(cluster.metrics_url, timeout=10).text

    def series(name: str, **labels: str) -> bool:
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return any(
            line.startswith(name + "{") and all(each in line for each in wanted) for line in scrape().splitlines()
        )

    counted = {
        "path": "/v1/embeddings",
        "status": "200",
        "api_key": "tests",
        "pooling": "last",
        "deployment": "Ingress",
    }
    wait_until(lambda: series("ray_poolhouse_requests_total", **counted), 40, "requests")
    wait_until(lambda: series("ray_poolhouse_queue_seconds_bucket", le="+Inf", pooling="last"), 40, "queue time")
    wait_until(lambda: series("ray_poolhouse_encode_seconds_count", deployment="Encoder-vectors"), 40, "encode time")

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.models.package import packaged_path
from tests.support.serve_run import ServeRun, application, serve_run
from tests.support.traces import FOLDER

STARTS_WITHIN_S = 100.0

FAKE_ARGS: dict[str, Any] = {
    "models": {"fake": {"source": "fake", "aliases": ["text-embedding-3-small", "organisation/fake"]}},
    "encoders": {"fake": {"model": "fake", "engine": "fake", "micro_batch_tokens": 64}},
}


def real_model_is_there() -> bool:
    """Whether the default model was prepared."""
    return packaged_path("all-minilm-l6-v2", "f16").exists()


def _args(wiring: str) -> dict[str, Any]:
    # Low, so that the tests' texts go either way: short ones stay in the ingress.
    args = {"wiring": wiring, **FAKE_ARGS, "batching": {"ingress_characters": 32}}
    if real_model_is_there():
        args["models"] = {**args["models"], "minilm": {"source": "package:all-minilm-l6-v2"}}
        # One slot and a fixed size: the plan of micro-batches then depends on the message alone.
        encoder = {"model": "minilm", "micro_batch_tokens": 256, "slots": 1}
        args["encoders"] = {**args["encoders"], "minilm": encoder}
    return args


@dataclass(slots=True)
class Cluster:
    """Both wirings in one running ``serve run``.

    Attributes:
        urls: base URL of each wiring.
        traces: where the split one writes its spans.
        first_answers: wiring → (model, status) of a request to every model at the moment its health was first good.
        unready: statuses of ``GET /health`` before that.
    """

    run: ServeRun
    urls: dict[str, str]
    traces: Path
    first_answers: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    unready: set[int] = field(default_factory=set)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    fused, split = _args("fused"), {**_args("split"), "tracing": {"exporter": "tests.support.traces:files"}}
    encoders = [f"Encoder-{name}" for name in split["encoders"]]
    applications = [
        application("fused", "/fused", fused, ["Ingress"]),
        application("split", "/split", split, ["Ingress", "Tokenizer", "Pooler", *encoders]),
    ]
    traces = tmp_path_factory.mktemp("traces")
    with serve_run(tmp_path_factory.mktemp("serve"), applications, {FOLDER: str(traces)}) as run:
        started = Cluster(run, {wiring: f"{run.url}/{wiring}" for wiring in ("fused", "split")}, traces)
        with httpx.Client(timeout=60) as client:

            def ready() -> bool:
                for wiring, url in started.urls.items():
                    if wiring not in started.first_answers and _health(client, url, started):
                        started.first_answers[wiring] = [
                            (
                                model,
                                client.post(f"{url}/v1/embeddings", json={"input": "a", "model": model}).status_code,
                            )
                            for model in fused["models"]
                        ]
                return len(started.first_answers) == len(started.urls)

            run.wait_for(ready, STARTS_WITHIN_S)
        yield started


def _health(client: httpx.Client, url: str, started: Cluster) -> bool:
    try:
        status = client.get(f"{url}/health").status_code
    except httpx.TransportError:
        return False
    if status != 200:
        started.unready.add(status)
    return status == 200


@pytest.fixture(params=["fused", "split"])
def wiring(request: pytest.FixtureRequest) -> str:
    """Both wirings, one after the other."""
    return str(request.param)


@pytest.fixture
def url(cluster: Cluster, wiring: str) -> str:
    """Base URL of one wiring."""
    return cluster.urls[wiring]

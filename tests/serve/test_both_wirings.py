"""Both wirings on a real Ray cluster: what a client gets, and what no client can break."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import openai
import orjson
import pytest

from cluster.config import parse_config
from cluster.types import PoolingType
from tests.serve.conftest import FAKE_ARGS, Cluster, real_model_is_there
from tests.support.bad_bodies import BAD_FIELDS, NO_OBJECT, NOT_JSON
from tests.support.mixed_requests import mixed_requests
from tests.support.pipelines import expected_rows, http_client, local_pipeline
from tests.support.serve_run import ROOT
from tests.support.timings import checked_parts_ms

pytestmark = [pytest.mark.serve, pytest.mark.timeout(150)]

GOOD = {"input": ["The capital of China is Beijing.", [5, 6, 7]]}
# Far above what each takes (1.2 s of CPU at most), and far below a deadline: other work on the machine must not decide.
BAD_WITHIN_S = 6.0
REFERENCE = ROOT / "tests" / "data" / "minilm-reference.npz"


async def _local_answers(requests: list[tuple[str, dict[str, Any]]]) -> list[bytes]:
    """What the same stages answer in this process, one request after the other."""
    with local_pipeline(parse_config(FAKE_ARGS)) as local:
        async with http_client(local) as client:
            return [(await client.post(path, json=body)).content for path, body in requests]


def test_health_is_good_only_when_every_route_answers(cluster: Cluster, wiring: str) -> None:
    assert cluster.first_answers[wiring]
    assert {status for _, status in cluster.first_answers[wiring]} == {200}
    assert cluster.unready <= {404, 500, 503}


def test_info_names_the_wiring(url: str, wiring: str) -> None:
    assert httpx.get(f"{url}/info").json()["wiring"] == wiring


async def test_two_hundred_mixed_requests_at_once_each_get_their_own_answer(url: str) -> None:
    requests = mixed_requests(200, seed=11)
    expected = await _local_answers(requests)
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(limits=limits, timeout=100) as client:
        answers = await asyncio.gather(*(client.post(url + path, json=body) for path, body in requests))
    assert {answer.status_code for answer in answers} == {200}
    wrong = [number for number, (got, want) in enumerate(zip(answers, expected, strict=True)) if got.content != want]
    assert not wrong


async def test_every_answer_says_where_its_time_went_and_what_computed_it(url: str) -> None:
    requests = mixed_requests(120, seed=5)
    documents = [f"document {number}" for number in range(30)]
    requests += [
        ("/v1/rerank", {"query": "document 3", "documents": documents, "strategy": strategy})
        for strategy in ("cross_encoder", "late_interaction", "similarity")
    ]
    requests += [("/classify", {"input": documents[:3]})]
    requests += [("/v1/embeddings", {"input": documents, "pooling": "none", "encoding_format": "base64"})]
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=60), timeout=100) as client:

        async def ask(path: str, body: dict[str, Any]) -> None:
            sent_s = time.monotonic()
            answer = await client.post(url + path, json=body)
            took_ms = (time.monotonic() - sent_s) * 1e3
            assert answer.status_code == 200, answer.text
            assert float(checked_parts_ms(answer.headers)["total"]) <= took_ms + 0.02
            assert answer.headers["x-poolhouse-build"] == "fake"

        await asyncio.gather(*(ask(path, body) for path, body in requests))
        if real_model_is_there():
            answer = await client.post(f"{url}/v1/embeddings", json={"input": documents, "model": "minilm"})
            checked_parts_ms(answer.headers)
            assert re.fullmatch(r"llama-cpp-python/\S+ ggml/\S+ .*CPU\(\S+\)", answer.headers["x-poolhouse-build"])


def _bad_requests() -> list[tuple[str, dict[str, Any]]]:
    """Every kind of bad input, by name, with httpx's arguments."""
    json_type = {"content-type": "application/json"}
    bodies = {**NOT_JSON, **NO_OBJECT, **{name: orjson.dumps(body) for name, body, _ in BAD_FIELDS}}
    bodies |= {
        "integer beyond 64 bits": b'{"input":[%d]}' % 10**30,
        "integer of a million digits": b'{"input":[' + b"9" * 1_000_000 + b"]}",
        "100,000 items": orjson.dumps({"input": ["a"] * 100_000}),
        "10 MB of words": orjson.dumps({"input": "word " * 2_000_000}),
        "two million ids": orjson.dumps({"input": [5] * 2_000_000}),
    }
    requests = [
        (name, {"method": "POST", "url": "/v1/embeddings", "content": raw, "headers": json_type})
        for name, raw in bodies.items()
    ]
    good = orjson.dumps(GOOD)
    for kind in ("text/plain", "multipart/form-data; boundary=a"):
        headers = {"content-type": kind}
        requests.append((kind, {"method": "POST", "url": "/v1/embeddings", "content": good, "headers": headers}))
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        requests.append((method, {"method": method, "url": "/v1/embeddings"}))
    requests.append(("unknown path", {"method": "POST", "url": "/v1/nowhere", "json": GOOD}))
    requests.append(("unknown model", {"method": "POST", "url": "/v1/embeddings", "json": {**GOOD, "model": "x"}}))
    return requests


def test_bad_input_is_refused_in_time_and_harms_nobody(cluster: Cluster, url: str) -> None:
    replicas = cluster.run.replicas()
    assert replicas
    faults: list[str] = []
    with httpx.Client(timeout=60) as client:
        before = client.post(f"{url}/v1/embeddings", json=GOOD)
        assert before.status_code == 200
        for name, request in _bad_requests():
            # The fastest of three, since other work on the machine may hold any single one up.
            for _ in range(3):
                began_s = time.monotonic()
                answer = client.request(**{**request, "url": url + request["url"]})
                took_s = time.monotonic() - began_s
                if took_s < BAD_WITHIN_S:
                    break
            if took_s >= BAD_WITHIN_S:
                faults.append(f"{name}: took {took_s:.1f} s")
            if not 400 <= answer.status_code < 500 or set(answer.json()["error"]) < {
                "message",
                "type",
                "param",
                "code",
            }:
                faults.append(f"{name}: {answer.status_code} {answer.text[:200]}")
            after = client.post(f"{url}/v1/embeddings", json=GOOD)
            if after.content != before.content:
                faults.append(f"{name}: the next good request got {after.status_code} {after.text[:200]}")
    assert not faults
    assert cluster.run.replicas() == replicas


def test_a_word_of_ten_megabytes_and_a_nul_are_texts(url: str) -> None:
    answer = httpx.post(f"{url}/v1/embeddings", json={"input": ["w" * 10_000_000, "a\0b"]}, timeout=60)
    assert answer.status_code == 200
    assert next(item["tokens"] for item in answer.json()["data"]) == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"POST %s/v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n" + b'{"input":',
        b"POST %s/v1/embeddings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST %s/v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
        b"\x00\xff%s\r\n\r\n",
    ],
    ids=["body cut off", "bad chunk", "negative length", "no HTTP"],
)
def test_a_broken_request_harms_nobody(cluster: Cluster, url: str, raw: bytes) -> None:
    replicas = cluster.run.replicas()
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as peer:
        peer.sendall(raw % parts.path.encode())
        peer.shutdown(socket.SHUT_WR)
        answer = peer.recv(65_536)
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert httpx.post(f"{url}/v1/embeddings", json=GOOD).status_code == 200
    assert cluster.run.replicas() == replicas


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["base64 by default", "float"])
def test_the_openai_client_works_unchanged(url: str, options: dict[str, Any]) -> None:
    texts = ["The capital of China is Beijing.", "Gravity pulls."]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert next(model.id for model in client.models.list()) == "fake"
        assert client.models.retrieve("organisation/fake").id == "fake"
        answer = client.embeddings.create(model="text-embedding-3-small", input=texts, **options)
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="nowhere", input=texts)
    for item, text in zip(answer.data, texts, strict=True):
        vector = np.asarray(item.embedding, dtype=np.float32)
        np.testing.assert_array_equal(vector, expected_rows(text, PoolingType.MEAN)[0])


@pytest.mark.parametrize("pooling", [pooling for pooling in PoolingType if pooling is not PoolingType.RANK])
@pytest.mark.skipif(not real_model_is_there(), reason="the default model is not prepared; run: poolhouse models pull")
def test_the_default_model_answers_bit_for_bit_alike_in_both_wirings(cluster: Cluster, pooling: PoolingType) -> None:
    with np.load(REFERENCE) as data:
        texts: list[Any] = data["texts"].tolist()
        ids: list[list[int]] = json.loads(str(data["ids"]))
    # One message to an idle encoder: the plan of its micro-batches follows from the lengths alone.
    body = {"input": [*texts[:40], *ids[40:]], "model": "minilm", "pooling": pooling.value, "truncate": "end"}
    headers = {"accept": "application/octet-stream"}
    answers = {
        wiring: httpx.post(f"{url}/v1/embeddings", json=body, headers=headers, timeout=100)
        for wiring, url in cluster.urls.items()
    }
    assert {answer.status_code for answer in answers.values()} == {200}, answers["fused"].text[:300]
    fused, split = answers["fused"], answers["split"]
    assert len(fused.content) > len(body["input"]) * 384 * 4
    assert fused.content == split.content
    assert fused.headers["x-poolhouse-fingerprint"] == split.headers["x-poolhouse-fingerprint"]


def _curl_commands(text: str) -> list[str]:
    """The ``curl`` commands of a Markdown text, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.strip() for line in joined.splitlines() if line.strip().startswith("curl ")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_of_the_quick_start_work_as_printed(url: str) -> None:
    commands = _curl_commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert commands
    for command in commands:
        here = command.replace("localhost:8000", url.removeprefix("http://"))
        assert here != command
        done = subprocess.run(["bash", "-c", f"{here} --silent --fail"], capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, (command, done.stderr)
        assert json.loads(done.stdout)


def test_the_make_file_serves_what_the_quick_start_says() -> None:
    makefile = Path(ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert targets
    for target in targets:
        assert f"\n{target}: " in makefile

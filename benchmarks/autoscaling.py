"""Autoscaling on one machine: a step from idle to several times one replica's capacity, and back to idle.

    make autoscaling                                          # the fake engine, with a cost for each token
    python -m benchmarks.autoscaling --engine llama           # the default model
    python -m benchmarks.autoscaling --times 2 --max-replicas 12 --step-s 40

Prints a table and writes a picture. Delays are short here, so that the run takes two minutes; see configs/prod.yaml for those
of production.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl

from tests.support.clusters import ServeCluster, serve_cluster

TARGET_WAIT_S = 2.0
MAX_REPLICAS = 6
TEXTS = 4
WORDS = 48
TOKENS = TEXTS * (WORDS + 2)


@dataclass(slots=True)
class Sample:
    """One second of the run. Waits are those of the requests answered in it, by the header x-queue-time-ms."""

    at_s: float
    offered_tokens_per_s: float
    answered_tokens_per_s: float
    replicas: int
    wait_s: float | None


@dataclass(slots=True)
class Run:
    """The samples of a run, and answers by status (0: none in time)."""

    samples: list[Sample] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)


def document(engine: str, max_replicas: int = MAX_REPLICAS, min_replicas: int = 1) -> dict[str, Any]:
    """The Serve configuration: split wiring, one encoder that scales by tokens."""
    encoder: dict[str, Any] = {"model": "model", "engine": engine, "micro_batch_tokens": 256}
    if engine == "fake":
        encoder["fake_seconds_per_token"] = 0.001
    else:
        encoder["threads"] = 1
    stages = [{"name": name, "ray_actor_options": {"num_cpus": 0.1}} for name in ("Ingress", "Tokenizer", "Pooler")]
    scaled = {
        "name": "Encoder-encoder",
        "ray_actor_options": {"num_cpus": 0.1},
        "max_ongoing_requests": 64,
        "user_config": {"target_wait_s": TARGET_WAIT_S},
        "autoscaling_config": {
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "upscale_delay_s": 0,
            "downscale_delay_s": 6,
            "metrics_interval_s": 1,
            "look_back_period_s": 5,
            "policy": {"policy_function": "deployments.autoscaling:TokenPolicy"},
        },
    }
    source = "fake" if engine == "fake" else "package:all-minilm-l6-v2"
    args = {
        "wiring": "split",
        "models": {"model": {"source": source}},
        "encoders": {"encoder": encoder},
        # Messages of one micro-batch or so: the queue is spread over the replicas as they come. All requests are alike here,
        # and each is to be work of its own.
        "batching": {"message_tokens": 1024, "deduplicate": False},
    }
    application = {
        "name": "poolhouse",
        "route_prefix": "/",
        "import_path": "deployments.app:build",
        "args": args,
        "deployments": [*stages, scaled],
    }
    return {"applications": [application]}


async def drive(cluster: ServeCluster, tokens_per_s: float, step_s: float, within_s: float) -> Run:
    """Offer a step of load, open loop, then wait until one replica is left."""
    run = Run()
    waits: list[tuple[float, float]] = []
    texts = [" ".join(f"w{text}x{word}" for word in range(WORDS)) for text in range(TEXTS)]
    limits = httpx.Limits(max_connections=2000)
    tasks: set[asyncio.Task[None]] = set()
    async with httpx.AsyncClient(base_url=cluster.url, timeout=120, limits=limits) as client:

        async def ask() -> None:
            try:
                answer = await client.post("/v1/embeddings", json={"input": texts})
            except httpx.TimeoutException:
                run.statuses[0] = run.statuses.get(0, 0) + 1
                return
            run.statuses[answer.status_code] = run.statuses.get(answer.status_code, 0) + 1
            waits.append((time.monotonic(), float(answer.headers.get("x-queue-time-ms", "nan")) / 1e3))

        async def sample() -> None:
            while True:
                await asyncio.sleep(1.0)
                now_s = time.monotonic()
                replicas = await asyncio.to_thread(cluster.replicas, "Encoder-encoder")
                recent = [wait_s for at_s, wait_s in waits if now_s - 1.0 <= at_s < now_s]
                offered = tokens_per_s if now_s - begin_s < step_s else 0.0
                wait = statistics.median(recent) if recent else None
                run.samples.append(Sample(now_s - begin_s, offered, len(recent) * TOKENS, replicas, wait))

        begin_s = time.monotonic()
        sampler = asyncio.create_task(sample())
        sent = 0
        while (passed_s := time.monotonic() - begin_s) < step_s:
            while sent < passed_s * tokens_per_s / TOKENS:
                task = asyncio.create_task(ask())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        while time.monotonic() - begin_s < within_s:
            await asyncio.sleep(1.0)
            if run.samples and run.samples[-1].replicas == 1:
                break
        await asyncio.sleep(2.0)
        sampler.cancel()
    return run


async def measure_capacity(cluster: ServeCluster, seconds: float) -> float:
    """Tokens per second of one replica, from engine time alone: encoded tokens over the header x-encode-time-ms."""
    texts = [" ".join(f"c{text}x{word}" for word in range(WORDS)) for text in range(TEXTS)]
    encode_s = 0.0
    requests = 0
    async with httpx.AsyncClient(base_url=cluster.url, timeout=120) as client:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            answer = await client.post("/v1/embeddings", json={"input": texts})
            encode_s += float(answer.headers["x-encode-time-ms"]) / 1e3
            requests += 1
    return requests * TOKENS / encode_s


def table(run: Run) -> str:
    """The run every few seconds, as Markdown."""
    rows = ["| Second | Offered tokens/s | Answered tokens/s | Replicas | Median wait, s |", "|---|---|---|---|---|"]
    for sample in run.samples[::5]:
        wait = "–" if sample.wait_s is None else f"{sample.wait_s:.1f}"
        rows.append(
            f"| {sample.at_s:.0f} | {sample.offered_tokens_per_s:.0f} | {sample.answered_tokens_per_s:.0f} "
            f"| {sample.replicas} | {wait} |"
        )
    return "\n".join(rows)


def draw(run: Run, capacity: float, path: Path) -> None:
    """Draw load, replicas and waits over time."""
    mpl.use("Agg")
    from matplotlib import pyplot

    seconds = [sample.at_s for sample in run.samples]
    figure, (load, replicas, waits) = pyplot.subplots(3, 1, sharex=True, figsize=(8, 7), layout="constrained")
    load.plot(seconds, [sample.offered_tokens_per_s for sample in run.samples], label="offered", color="0.6")
    load.plot(seconds, [sample.answered_tokens_per_s for sample in run.samples], label="answered")
    load.axhline(capacity, linestyle=":", color="0.3", label="capacity of one replica")
    load.set_ylabel("tokens/s")
    load.legend(loc="upper right")
    replicas.step(seconds, [sample.replicas for sample in run.samples], where="post")
    replicas.set_ylabel("replicas")
    replicas.set_ylim(bottom=0)
    known = [(sample.at_s, sample.wait_s) for sample in run.samples if sample.wait_s is not None]
    waits.plot([at_s for at_s, _ in known], [wait_s for _, wait_s in known], marker=".")
    waits.axhline(TARGET_WAIT_S, linestyle=":", color="0.3", label="target_wait_s")
    waits.set_ylabel("median wait, s")
    waits.set_xlabel("seconds")
    waits.legend(loc="upper right")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["fake", "llama"], default="fake")
    parser.add_argument("--times", type=float, default=4.0, help="load of the step, in capacities of one replica")
    parser.add_argument("--max-replicas", type=int, default=MAX_REPLICAS)
    parser.add_argument("--step-s", type=float, default=50.0)
    parser.add_argument("--picture", type=Path, default=Path("autoscaling.png"))
    options = parser.parse_args()
    with serve_cluster() as cluster:
        cluster.deploy(document(options.engine, options.max_replicas))
        capacity = 1000.0 if options.engine == "fake" else asyncio.run(measure_capacity(cluster, 4.0))
        run = asyncio.run(drive(cluster, options.times * capacity, options.step_s, 2 * options.step_s + 60))
    print(
        f"engine {options.engine}, capacity of one replica {capacity:.0f} tokens/s, answers by status: {run.statuses}"
    )
    print(table(run))
    counts = [sample.replicas for sample in run.samples]
    print(f"most replicas {max(counts)}, replica-seconds {sum(counts)}")
    draw(run, capacity, options.picture)


if __name__ == "__main__":
    main()

"""One function for each fault: it causes the fault under load and returns what the clients saw.

Each takes the seconds that it may last, so that ``make chaos`` and the tests run the same code for a longer or a shorter time.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.types import PoolingType
from tests.chaos.cluster import Cluster
from tests.chaos.load import Body, Check, Client, Load, Outcome
from tests.support.pipelines import expected_rows

WORDS = [f"word{number}" for number in range(500)]
POISON_ID = 13

# Eight words and two special tokens.
TOKENS_OF_BODY = 10

OVERLOAD_CAPACITY_PER_S = 30.0
OVERLOAD_TIMEOUT_S = 4.0


def fake_args(wiring: str = "split", **encoder: Any) -> dict[str, Any]:
    """A wiring over the fake engine, one encoder named ``e``."""
    return {
        "wiring": wiring,
        "models": {"m": {"source": "fake"}},
        "encoders": {"e": {"model": "m", "engine": "fake", "slots": 1, "fake_poison_id": POISON_ID, **encoder}},
        "limits": {"timeout_s": 60.0},
    }


def encoders_of(wiring: str) -> str:
    """The deployment whose replicas encode."""
    return "Ingress" if wiring == "fused" else "Encoder-e"


def two_of_each(wiring: str) -> dict[str, int]:
    """Two replicas of every deployment."""
    names = ["Ingress"] if wiring == "fused" else ["Ingress", "Tokenizer", "Pooler", "Encoder-e"]
    return dict.fromkeys(names, 2)


def overload_args(wiring: str = "split") -> dict[str, Any]:
    """The fake engine with a cost that makes it serve 30 requests a second, and a short deadline."""
    args = fake_args(wiring, fake_seconds_per_token=1 / (TOKENS_OF_BODY * OVERLOAD_CAPACITY_PER_S))
    return {**args, "limits": {"timeout_s": OVERLOAD_TIMEOUT_S}}


def text_of(number: int) -> str:
    """Eight words that depend on ``number`` alone."""
    return " ".join(random.Random(number).choices(WORDS, k=8))


def body_of(number: int) -> dict[str, Any]:
    """A request of one text."""
    return {"input": text_of(number)}


def is_right(body: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether the answer is the fake engine's mean vector of the text."""
    expected = expected_rows(body["input"], PoolingType.MEAN)[0]
    return bool(np.allclose(answer["data"][0]["embedding"], expected, atol=1e-5))


def matrices_of(number: int) -> dict[str, Any]:
    """A request of two texts whose every token's vector is wanted: so many numbers go through the Pooler."""
    chance = random.Random(number)
    return {"input": [" ".join(chance.choices(WORDS, k=300)) for _ in range(2)], "pooling": "none"}


def are_right(body: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether the answer is the fake engine's rows of each text."""
    return all(
        np.allclose(item["embedding"], expected_rows(text, PoolingType.NONE), atol=1e-5)
        for text, item in zip(body["input"], answer["data"], strict=True)
    )


@dataclass(slots=True)
class Overload:
    """What an overload did; times in seconds, rates per second."""

    outcome: Outcome
    goodput_share: float
    refusal_p99_s: float
    normal_after_s: float


@contextmanager
def busy_process() -> Iterator[None]:
    """Another process of this machine that computes without pause."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


async def overload(cluster: Cluster, seconds: float, times: float = 10.0) -> Overload:
    """Send ``times`` the capacity for so long, then see how soon a lone request is answered as quickly as before."""
    client = Client(cluster.port)
    before_s = statistics.median([await _timed(client, number) for number in range(5)])
    client.close()
    load = Load(cluster.port, times * OVERLOAD_CAPACITY_PER_S, body_of, is_right)
    outcome = await load.run(seconds)
    ended_s = time.monotonic()
    # The load ends with its last answer; what the queue held then is gone, so this counts from the last request sent.
    last_sent_s = ended_s - max(0.0, max(outcome.finished_s[200]) - seconds)
    client = Client(cluster.port)
    while await _timed(client, 0) > 2 * before_s + 0.05:
        pass
    client.close()
    in_time = sum(at_s <= seconds for at_s in outcome.finished_s[200])
    return Overload(
        outcome,
        goodput_share=in_time / (seconds * OVERLOAD_CAPACITY_PER_S),
        refusal_p99_s=outcome.percentile_s(429, 99),
        normal_after_s=time.monotonic() - last_sent_s,
    )


async def _timed(client: Client, number: int) -> float:
    """Seconds until the answer; infinite for a refusal."""
    begun_s = time.monotonic()
    status, content = await client.post(body_of(number))
    assert status in (200, 429), (status, content)
    return time.monotonic() - begun_s if status == 200 else math.inf


@dataclass(slots=True)
class Losses:
    """What losing replicas did."""

    outcome: Outcome
    kills: int = 0
    replaced_s: list[float] = field(default_factory=list)


async def kill_replicas(
    cluster: Cluster,
    deployment: str,
    seconds: float,
    rate_per_s: float,
    body: Body = body_of,
    check: Check = is_right,
) -> Losses:
    """Kill one of two replicas, again and again, each as soon as the replacement of the last one runs."""
    load = Load(cluster.port, rate_per_s, body, check)
    losses = Losses(load.outcome)
    over = asyncio.Event()

    def kill_on() -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            begun_s = time.monotonic()
            process = cluster.kill(deployment)
            losses.kills += 1
            cluster.wait_for_replicas(deployment, 2, without=process, within_s=90)
            losses.replaced_s.append(time.monotonic() - begun_s)

    killer = asyncio.create_task(asyncio.to_thread(kill_on))
    killer.add_done_callback(lambda _: over.set())
    await load.run(seconds + 100, over)
    await killer
    return losses


async def under_load(
    cluster: Cluster,
    rate_per_s: float,
    fault: Callable[[], object],
    more_s: float = 2.0,
    body: Body = body_of,
    check: Check = is_right,
    *,
    retry: bool = False,
) -> Outcome:
    """Cause ``fault`` (in a thread) while requests come in, and for a while after."""
    load = Load(cluster.port, rate_per_s, body, check, retry=retry)
    over = asyncio.Event()
    running = asyncio.create_task(load.run(120, over))
    await asyncio.sleep(1.0)
    await asyncio.to_thread(fault)
    await asyncio.sleep(more_s)
    over.set()
    return await running


async def hang(
    cluster: Cluster,
    deployment: str,
    seconds: float,
    rate_per_s: float,
    body: Body = body_of,
    check: Check = is_right,
) -> Outcome:
    """Stop one replica's process (SIGSTOP) for so long, while requests come in."""
    process = cluster.a_process(deployment)

    def stop() -> None:
        os.kill(process, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(process, signal.SIGCONT)

    return await under_load(cluster, rate_per_s, stop, body=body, check=check)


@dataclass(slots=True)
class Left:
    """What clients that left have left behind.

    Attributes:
        seconds: from the first request until the last client was gone.
        answered: clients that had their answer before.
    """

    seconds: float
    answered: int


async def disconnect(cluster: Cluster, clients: int, seed: int = 7) -> Left:
    """Send so many requests and leave each after a random moment."""
    chance = random.Random(seed)
    answered = 0

    async def leave(number: int) -> None:
        nonlocal answered
        client = Client(cluster.port)
        await asyncio.sleep(chance.uniform(0, 2))
        try:
            status, _ = await asyncio.wait_for(client.post(body_of(number)), chance.uniform(0.001, 0.5))
            answered += status == 200
        except TimeoutError:
            pass
        finally:
            client.close()

    begun_s = time.monotonic()
    await asyncio.gather(*(leave(number) for number in range(clients)))
    return Left(time.monotonic() - begun_s, answered)

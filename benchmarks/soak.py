"""Memory over many requests: 100,000 of them on the fake engine, each stage a process, sampled on the way.

make soak
"""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import time
from collections import Counter
from pathlib import Path

from starlette.types import ASGIApp, Message, Scope

from cluster.api.application import create_application
from cluster.benchmark.connection import Answer, Connection
from tests.support.clusters import serve_cluster
from tests.support.pipelines import fake_config, local_pipeline

CONNECTIONS = 32
SAMPLES = 10
WARM_SHARE = 0.2
"""Of the requests, after which what is allocated once has been."""


def document() -> dict[str, object]:
    """The Serve configuration: split wiring, one replica of each stage, an engine that costs nothing."""
    args = {
        "wiring": "split",
        "models": {"model": {"source": "fake"}},
        "encoders": {"encoder": {"model": "model", "engine": "fake", "micro_batch_tokens": 512}},
    }
    names = ("Ingress", "Tokenizer", "Pooler", "Encoder-encoder")
    stages = [{"name": name, "max_ongoing_requests": 1000, "ray_actor_options": {"num_cpus": 0.1}} for name in names]
    application = {"name": "poolhouse", "import_path": "deployments.app:build", "args": args, "deployments": stages}
    return {"applications": [application]}


def resident_mb(process: Path) -> float:
    """Resident memory of a process, by its folder in /proc."""
    return int((process / "statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def memory_mb() -> dict[str, float]:
    """Resident memory of each replica's process, MB; Ray names the processes after their deployments."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            mb = resident_mb(folder)
        except OSError:
            # The process has ended meanwhile.
            continue
        name = re.search(r"ServeReplica:poolhouse:([\w-]+)", title)
        if name is not None:
            found[name[1]] = mb
    return found


class Soak:
    """Sends requests of changing texts over a few connections, each as soon as the last one's answer is there."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.samples: list[tuple[int, dict[str, float]]] = []
        self.statuses: Counter[int] = Counter()
        self._sent = 0
        self._port = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._finished = asyncio.get_running_loop().create_future()

    async def run(self, port: int) -> None:
        """Send them all."""
        self._port = port
        await asyncio.gather(*(self._open() for _ in range(CONNECTIONS)))
        await self._finished

    async def _open(self) -> None:
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(head, self._answered), "127.0.0.1", self._port
        )
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        if self._sent < self.requests:
            self._sent += 1
            connection.send(b'{"input":"text number %d of many"}' % self._sent, time.monotonic(), 1)

    def _answered(self, connection: Connection, answer: Answer) -> None:
        self.statuses[answer.status] += 1
        if answer.fault and self.statuses[0] <= 5:
            print(f"no answer: {answer.fault}", flush=True)
        done = sum(self.statuses.values())
        if done % max(1, self.requests // SAMPLES) == 0:
            self.samples.append((done, memory_mb()))
            print(f"{done} requests: {self.samples[-1][1]}", flush=True)
        if done == self.requests:
            self._finished.set_result(None)
        elif connection.is_open:
            self._send(connection)
        else:
            # The load balancer closes connections when it is reconfigured.
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)


async def soak(port: int, requests: int) -> Soak:
    """Run one soak."""
    run = Soak(requests)
    await run.run(port)
    return run


async def soak_in_process(requests: int) -> list[tuple[int, dict[str, float]]]:
    """The same without Serve: the HTTP application and all stages in this process, called as an ASGI server calls it."""
    samples: list[tuple[int, dict[str, float]]] = []
    statuses: Counter[int] = Counter()

    async def ask(application: ASGIApp, number: int) -> None:
        body = b'{"input":"text number %d of many"}' % number
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/embeddings",
            "query_string": b"",
            "headers": headers,
            "state": {},
        }

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses[message["status"]] += 1

        await application(scope, receive, send)

    with local_pipeline(fake_config()) as local:
        application = create_application(local.pipeline, local.check_ready)
        for first in range(0, requests, CONNECTIONS):
            await asyncio.gather(*(ask(application, first + lane) for lane in range(CONNECTIONS)))
            if (first // CONNECTIONS + 1) % max(1, requests // CONNECTIONS // SAMPLES) == 0:
                samples.append((first + CONNECTIONS, {"all stages": resident_mb(Path("/proc/self"))}))
                print(f"{samples[-1][0]} requests: {samples[-1][1]}", flush=True)
    print(f"answers by status: {dict(statuses)}")
    return samples


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--in-process", action="store_true", help="without Ray: the stages alone")
    options = parser.parse_args()
    started_s = time.monotonic()
    if options.in_process:
        samples = asyncio.run(soak_in_process(options.requests))
    else:
        with serve_cluster() as cluster:
            cluster.deploy(document())
            started_s = time.monotonic()
            run = asyncio.run(soak(int(cluster.url.rpartition(":")[2]), options.requests))
        samples = run.samples
        print(f"answers by status: {dict(run.statuses)}")
    print(f"{options.requests} requests in {time.monotonic() - started_s:.0f} s")
    warm = samples[int(SAMPLES * WARM_SHARE) - 1][1]
    print(f"| Process | MB after {WARM_SHARE:.0%} | MB at the end |\n|---|---|---|")
    for name, mb in sorted(samples[-1][1].items()):
        print(f"| {name} | {warm.get(name, float('nan')):.0f} | {mb:.0f} |")


if __name__ == "__main__":
    main()

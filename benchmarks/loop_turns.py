"""How much CPU time the thread of a server's event loop takes at once while the server works.

``python -m benchmarks.loop_turns`` prints milliseconds for large requests, fused, with the fake engine. A measurement of its own,
not a test: what it says depends on the machine and on what else runs there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.api.application import create_application
from cluster.offload import keep_loop_quick
from tests.support.pipelines import fake_config, local_pipeline
from tests.support.servers import served

_BEAT_S = 0.001


@dataclass(slots=True)
class Heartbeat:
    """An ASGI application around another one. From its first request on, a task on its loop wakes every millisecond.

    Attributes:
        longest_s: the most CPU time of the loop's thread between two beats. What else runs on the machine adds nothing to it.
    """

    application: ASGIApp
    longest_s: float = 0.0
    beats: int = 0
    _task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._beat())
        await self.application(scope, receive, send)

    def reset(self) -> None:
        """Forget how long it took so far."""
        self.longest_s, self.beats = 0.0, 0

    async def _beat(self) -> None:
        while True:
            before_s = time.thread_time()
            await asyncio.sleep(_BEAT_S)
            self.longest_s = max(self.longest_s, time.thread_time() - before_s)
            self.beats += 1


def _listed(item: Callable[[int], str], items: int) -> bytes:
    return f"[{','.join(map(item, range(items)))}]".encode()


_REQUESTS = {
    "1,500,000 ids in one list": ("/v1/embeddings", b'{"input":' + _listed(lambda _: "30000", 1_500_000) + b"}"),
    "2,000,000 empty lists": ("/v1/embeddings", b'{"input":' + _listed(lambda _: "[]", 2_000_000) + b"}"),
    "one text of 16 MB": ("/v1/embeddings", b'{"input":["' + b"a" * 16_000_000 + b'"]}'),
    "50,000 equal texts": ("/v1/embeddings", b'{"input":' + _listed(lambda _: '"equal"', 50_000) + b"}"),
    "50,000 texts": ("/v1/embeddings", b'{"input":' + _listed(lambda i: f'"t{i}"', 50_000) + b"}"),
    "15,000 lists of one id": ("/v1/embeddings", b'{"input":' + _listed(lambda _: "[5]", 15_000) + b"}"),
    "24,576 scores of rank": (
        "/v1/embeddings",
        b'{"pooling":"rank","input":' + _listed(lambda i: f'"t{i}"', 24_576) + b"}",
    ),
    "20,000 documents reranked": ("/rerank", b'{"query":"a","documents":' + _listed(lambda i: f'"{i}"', 20_000) + b"}"),
    "20,000 pairs scored": (
        "/score",
        b'{"text_1":'
        + _listed(lambda i: f'"a{i}"', 20_000)
        + b',"text_2":'
        + _listed(lambda i: f'"b{i}"', 20_000)
        + b"}",
    ),
    "20,000 texts classified": ("/classify", b'{"input":' + _listed(lambda i: f'"t{i}"', 20_000) + b"}"),
}
_REPEATS = 3


def main() -> None:
    """Print the most CPU time at once of each request, as often as it is repeated."""
    with local_pipeline(fake_config()) as local:
        application = Heartbeat(create_application(local.pipeline, local.check_ready))
        with served(application) as url, httpx.Client(base_url=url, timeout=120) as client:
            client.post("/v1/embeddings", json={"input": "a"})
            keep_loop_quick()
            for name, (path, body) in _REQUESTS.items():
                longest_ms = []
                for _ in range(_REPEATS):
                    application.reset()
                    status = client.post(path, content=body).status_code
                    longest_ms.append(round(1e3 * application.longest_s, 1))
                print(name, status, *longest_ms)


if __name__ == "__main__":
    main()

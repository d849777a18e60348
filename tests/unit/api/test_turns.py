"""However much a request asks for, a turn of the event loop does little of it.

Work is counted in function calls, which are the same on every machine; each stands for a microsecond of CPU time.
"""

from __future__ import annotations

import sys
from asyncio.base_events import BaseEventLoop
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from tests.support.pipelines import fake_config, http_client, local_pipeline

_ITEMS = 12_000
_MOST_CALLS = 20_000


class Calls:
    """Counts the calls of this thread, and the most in one turn of its event loop."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def count(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.now += 1

    def thread_time(self) -> float:
        return self.now * 1e-6


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    made = Calls()
    run_once: Any = BaseEventLoop._run_once  # type: ignore[attr-defined]  # the one place that sees a turn from outside

    def counted(loop: BaseEventLoop) -> None:
        before = made.now
        run_once(loop)
        made.most = max(made.most, made.now - before)

    monkeypatch.setattr(BaseEventLoop, "_run_once", counted)
    monkeypatch.setattr("cluster.offload.time.thread_time", made.thread_time)
    yield made
    sys.setprofile(None)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["equal"] * _ITEMS}),
        ("/v1/embeddings", {"input": [f"text {item}" for item in range(_ITEMS)]}),
        ("/v1/embeddings", {"input": [[5]] * _ITEMS}),
        ("/rerank", {"query": "a", "documents": [str(item) for item in range(_ITEMS)]}),
        ("/score", {"text_1": ["a"] * _ITEMS, "text_2": [str(item) for item in range(_ITEMS)]}),
    ],
    ids=["equal", "distinct", "ids", "rerank", "pairs"],
)
async def test_no_turn_of_the_loop_goes_through_all_items(path: str, body: dict[str, Any], calls: Calls) -> None:
    with local_pipeline(fake_config()) as local:
        async with http_client(local, timeout=300) as client:
            request = client.build_request("POST", path, json=body)
            # What is imported and started with the first is not this request's.
            await client.post(path, json=body)
            calls.most = 0
            sys.setprofile(calls.count)
            response = await client.send(request)
            sys.setprofile(None)
    assert response.status_code == 200
    assert 0 < calls.most < _MOST_CALLS

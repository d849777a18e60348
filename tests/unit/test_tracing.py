"""Traces across the stages, into an exporter in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from cluster.config import TracingConfig
from cluster.errors import ConfigError
from cluster.telemetry import tracing as tracing_module
from cluster.telemetry.tracing import TRACING
from tests.support.pipelines import fake_config, http_client, local_pipeline
from tests.support.traces import finished_spans

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def tracing() -> Iterator[None]:
    TRACING.start("tests.support.traces:in_memory")
    yield
    TRACING.stop()


async def request(**headers: str) -> tuple[int, dict[str, ReadableSpan]]:
    with local_pipeline(fake_config()) as local:
        async with http_client(local, headers=headers) as client:
            answer = await client.post("/v1/embeddings", json={"input": ["a", "b"], "model": "fake"})
    return answer.status_code, {span.name: span for span in finished_spans()}


@pytest.mark.usefixtures("tracing")
async def test_the_stages_are_children_of_the_request_and_it_of_the_client() -> None:
    status, spans = await request(traceparent=PARENT)
    assert status == 200
    assert set(spans) == {"embed", "tokenize", "encode", "finish"}
    root = spans["embed"]
    assert format(root.context.trace_id, "032x") == PARENT.split("-")[1]
    assert root.parent is not None
    assert format(root.parent.span_id, "016x") == PARENT.split("-")[2]
    for stage in ("tokenize", "encode", "finish"):
        parent = spans[stage].parent
        assert parent is not None
        assert parent.span_id == root.context.span_id
    assert spans["encode"].attributes == {
        "poolhouse.model": "fake",
        "poolhouse.pooling": "mean",
        "poolhouse.items": 2,
    }


@pytest.mark.usefixtures("tracing")
async def test_a_client_that_asks_not_to_be_traced_is_not() -> None:
    assert (await request(traceparent=PARENT[:-1] + "0")) == (200, {})


@pytest.mark.usefixtures("tracing")
async def test_without_a_header_a_trace_begins_here() -> None:
    _, spans = await request()
    assert spans["embed"].parent is None


@pytest.mark.usefixtures("tracing")
def test_a_message_is_a_span_of_each_traced_request_in_it() -> None:
    with TRACING.spans("encode message", [PARENT, None, PARENT.replace("4bf92f35", "aaaaaaaa")]):
        pass
    spans = finished_spans()
    assert len(spans) == 2
    assert {format(span.context.trace_id, "032x")[:8] for span in spans} == {"4bf92f35", "aaaaaaaa"}


@pytest.mark.usefixtures("tracing")
def test_a_failure_is_marked_and_what_the_client_sent_is_not_told() -> None:
    with pytest.raises(ValueError, match="secret text"), TRACING.span("encode", PARENT):
        raise ValueError("secret text")
    (span,) = finished_spans()
    assert span.status.description == "ValueError"
    assert "secret text" not in span.to_json()


async def test_off_by_default() -> None:
    before = finished_spans()
    assert TracingConfig().exporter is None
    assert (await request(traceparent=PARENT))[0] == 200
    assert finished_spans() == before


@pytest.mark.parametrize(
    "exporter", ["nowhere:at_all", "tests.support.traces:missing", "tests.support.traces:wrong", "x"]
)
def test_an_exporter_that_cannot_be_used_is_refused(exporter: str) -> None:
    with pytest.raises(ConfigError, match=r"tracing\.exporter"):
        TRACING.start(exporter)
    assert not TRACING.on


class _Stubborn(SpanProcessor):
    """Ends when it is allowed to, or not at all."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.may_end = threading.Event()
        self.failure = failure

    def shutdown(self) -> None:
        if self.failure is not None:
            raise self.failure
        assert self.may_end.wait(30)


@pytest.mark.parametrize("failure", [None, ValueError("no such collector")], ids=["hangs", "fails"])
def test_an_exporter_that_cannot_send_its_rest_does_not_hold_up_the_end(
    failure: Exception | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stubborn = _Stubborn(failure)
    monkeypatch.setattr(tracing_module, "_processors", lambda exporter: [stubborn])
    monkeypatch.setattr(tracing_module, "_STOP_WITHIN_S", 0.01 if failure is None else 30.0)
    TRACING.start("a:b")
    with caplog.at_level(logging.ERROR, "poolhouse"):
        TRACING.stop()
    stubborn.may_end.set()
    assert not TRACING.on
    assert [record.message.startswith("the last spans") for record in caplog.records] == [True]

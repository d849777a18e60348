"""OpenTelemetry traces across the stages; off unless the configuration names an exporter.

A request's place in its trace travels as a W3C ``traceparent`` in ``RequestFacts.trace``: from the client's header to the
ingress, and from there with each message. Off, a span costs one comparison.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from cluster.errors import ConfigError
from cluster.telemetry.metrics import BACKGROUND_FAILURES

_PROPAGATOR = TraceContextTextMapPropagator()
_HEADER = "traceparent"

# An exporter whose collector is gone tries for half a minute; the end of a replica does not wait for it.
_STOP_WITHIN_S = 5.0

logger = logging.getLogger("poolhouse")


class Tracing:
    """The tracer of this process, if there is one."""

    def __init__(self) -> None:
        self._tracer: Tracer | None = None
        self._provider: TracerProvider | None = None

    @property
    def on(self) -> bool:
        """Whether spans are made."""
        return self._tracer is not None

    def start(self, exporter: str, sample_share: float = 1.0) -> None:
        """Make spans from now on.

        Args:
            exporter: ``module:function``; the function returns the list of span processors, as Ray Serve's own tracing takes it.
            sample_share: of the traces that begin here; a client's own decision goes before it.

        Raises:
            ConfigError: the exporter cannot be found, or returns something else.
        """
        processors = _processors(exporter)
        self.stop()
        sampler = ParentBased(TraceIdRatioBased(sample_share))
        self._provider = TracerProvider(
            sampler=sampler, resource=Resource.create({"service.name": "poolhouse"}), shutdown_on_exit=False
        )
        for processor in processors:
            self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("poolhouse")

    def stop(self) -> None:
        """Make no more spans, and send those that are left, if that takes a few seconds at most."""
        provider, self._tracer, self._provider = self._provider, None, None
        if provider is not None:
            sender = threading.Thread(target=_send_rest, args=(provider,), name="traces", daemon=True)
            sender.start()
            sender.join(_STOP_WITHIN_S)
            if sender.is_alive():
                logger.error("the last spans were not sent within %g s", _STOP_WITHIN_S)

    @contextmanager
    def span(
        self,
        name: str,
        trace: str | None,
        attributes: Mapping[str, AttributeValue] | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Iterator[str | None]:
        """Measure a block as a span; yields the ``traceparent`` of what it calls.

        Args:
            trace: ``traceparent`` of what called it; without one a trace begins.
        """
        if self._tracer is None:
            yield trace
            return
        parent = _PROPAGATOR.extract({_HEADER: trace}, Context()) if trace else Context()
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            carrier: dict[str, str] = {}
            _PROPAGATOR.inject(carrier, set_span_in_context(span, Context()))
            try:
                yield carrier.get(_HEADER, trace)
            except Exception as error:
                # The kind of error and no message: a message may quote what the client sent.
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    @contextmanager
    def spans(self, name: str, traces: Iterable[str | None]) -> Iterator[None]:
        """Measure a block as a span of every request that a message carries and that is traced."""
        if self._tracer is None:
            yield
            return
        with ExitStack() as stack:
            for trace in traces:
                if trace is not None:
                    stack.enter_context(self.span(name, trace, kind=SpanKind.CONSUMER))
            yield


def _send_rest(provider: TracerProvider) -> None:
    try:
        provider.shutdown()
    except Exception:
        BACKGROUND_FAILURES.labels("traces").inc()
        logger.exception("the last spans could not be sent")


def _processors(exporter: str) -> list[SpanProcessor]:
    module, _, function = exporter.partition(":")
    try:
        processors = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"tracing.exporter is {exporter!r} and cannot be used: {error}; give module:function"
        ) from error
    if not isinstance(processors, list) or not all(isinstance(each, SpanProcessor) for each in processors):
        raise ConfigError(
            f"tracing.exporter {exporter!r} returned {type(processors).__name__}; return a list of SpanProcessor"
        )
    return processors


TRACING = Tracing()

"""The metrics, by name. Counted in this process with the Prometheus client; an exporter reads ``REGISTRY`` now and then.

A count costs two or three microseconds, as a call of Ray's metrics does; counted here, the stages need no Ray, and
``deployments.metrics`` carries the sums over. Names and labels are stable; ``docs/metrics.md`` explains each.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_ROUTE = ("model", "pooling")

REQUESTS = Counter(
    "poolhouse_requests",
    "Answers over HTTP; model and pooling are empty where no vector or score was computed.",
    ("path", *_ROUTE, "status", "api_key"),
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "poolhouse_request_seconds",
    "From the request's head to the answer's body, in the ingress.",
    ("path",),
    registry=REGISTRY,
    buckets=_SECONDS,
)
REFUSALS = Counter(
    "poolhouse_refusals",
    "Answers that are an error, by the error's code.",
    ("path", "code"),
    registry=REGISTRY,
)
ITEMS = Counter("poolhouse_items", "Texts or pairs encoded.", _ROUTE, registry=REGISTRY)
TOKENS = Counter("poolhouse_tokens", "Tokens encoded.", _ROUTE, registry=REGISTRY)
TRUNCATED_ITEMS = Counter("poolhouse_truncated_items", "Items that truncation has cut.", _ROUTE, registry=REGISTRY)
REUSED_ITEMS = Counter(
    "poolhouse_reused_items",
    "Items that were not encoded anew: found in the result cache, or equal to another item in the call or in flight.",
    ("source",),
    registry=REGISTRY,
)
QUEUE_SECONDS = Histogram(
    "poolhouse_queue_seconds",
    "What one answered request waited: none of it was being tokenized, in an engine or being pooled.",
    _ROUTE,
    registry=REGISTRY,
    buckets=_SECONDS,
)
QUEUED_TOKENS = Gauge(
    "poolhouse_queued_tokens",
    "Tokens that wait in an ingress replica for an encoder.",
    ("encoder",),
    registry=REGISTRY,
)
RETRIES = Counter("poolhouse_retries", "Messages sent again since a replica was lost.", ("stage",), registry=REGISTRY)
BACKGROUND_FAILURES = Counter(
    "poolhouse_background_failures",
    "Steps of a replica's background work that failed and are done again.",
    ("work",),
    registry=REGISTRY,
)
PENDING_TOKENS = Gauge(
    "poolhouse_pending_tokens", "Tokens queued or in work in an encoder replica.", ("encoder",), registry=REGISTRY
)
ENCODE_SECONDS = Histogram(
    "poolhouse_encode_seconds", "One engine call: one micro-batch.", registry=REGISTRY, buckets=_SECONDS
)
GOLDEN_MISMATCHES = Counter(
    "poolhouse_golden_mismatches",
    "Starts of an encoder that computed other numbers for the golden texts than an earlier one of its fingerprint.",
    ("encoder",),
    registry=REGISTRY,
)
BATCH_FILL = Histogram(
    "poolhouse_batch_fill_ratio",
    "Tokens of a micro-batch as a share of the most that one holds.",
    registry=REGISTRY,
    buckets=_SHARES,
)


def count_answer(path: str, status: int, api_key: str, seconds: float, model: str = "", pooling: str = "") -> None:
    """Count one HTTP answer.

    Args:
        path: as registered; empty for a path that does not exist, which a client chooses freely.
        api_key: the key's id, empty without one.
    """
    REQUESTS.labels(path, model, pooling, str(status), api_key).inc()
    REQUEST_SECONDS.labels(path).observe(seconds)


def count_encoded(model: str, pooling: str, items: int, tokens: int, cut_items: int) -> None:
    """Count what the encoders did for one request."""
    ITEMS.labels(model, pooling).inc(items)
    TOKENS.labels(model, pooling).inc(tokens)
    if cut_items:
        TRUNCATED_ITEMS.labels(model, pooling).inc(cut_items)

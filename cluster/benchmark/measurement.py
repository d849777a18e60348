"""Recordings → rates and percentiles."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.benchmark.generator import Recording

Float64 = NDArray[np.float64]

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(slots=True)
class Measurement:
    """One window against one server.

    Attributes:
        requests: answered well within the window. A request that only reaches into it counts by the share of its time that
            lies inside, so that few long requests do not make the rate jump by whole ones.
        texts, tokens: of those requests; tokens as the server counts them, None where it does not say.
        latencies_s: float64 ``[n]`` of the requests that ended in the window.
        errors: HTTP status or fault → how many.
        client_cpu_s: CPU seconds of the load generator within the window.
        server_cpu_s: CPU seconds of the server by kind of process, None where it was not watched.
    """

    generator: str
    seconds: float
    requests: float
    texts: float
    tokens: float | None
    latencies_s: Float64
    errors: dict[str, int] = field(default_factory=dict)
    client_cpu_s: float = 0.0
    server_cpu_s: dict[str, float] | None = None

    @property
    def requests_per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def texts_per_s(self) -> float:
        """Texts a second."""
        return self.texts / self.seconds

    @property
    def tokens_per_s(self) -> float | None:
        """Encoded tokens a second."""
        return None if self.tokens is None else self.tokens / self.seconds

    @property
    def server_cpu_s_per_token(self) -> float | None:
        """CPU seconds of the whole server for one encoded token."""
        if self.server_cpu_s is None or not self.tokens:
            return None
        return sum(self.server_cpu_s.values()) / self.tokens

    def percentile_s(self, percent: float) -> float | None:
        """Latency that ``percent`` of the requests kept within, seconds; None without requests."""
        return float(np.percentile(self.latencies_s, percent)) if len(self.latencies_s) else None


def measure(recording: Recording, server_cpu_s: dict[str, float] | None = None) -> Measurement:
    """Return what the window of a recording shows."""
    begin_s, end_s = recording.begin_s, recording.end_s
    requests = texts = tokens = 0.0
    counted = True
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    for call in recording.calls:
        inside_s = min(call.ended_s, end_s) - max(call.started_s, begin_s)
        if inside_s <= 0 and not begin_s <= call.ended_s <= end_s:
            continue
        if call.answer.status != 200:
            if begin_s <= call.ended_s <= end_s:
                errors[call.answer.fault or str(call.answer.status)] += 1
            continue
        took_s = call.ended_s - call.started_s
        share = min(1.0, inside_s / took_s) if took_s > 0 else 1.0
        requests += share
        texts += share * call.texts
        if call.answer.tokens is None:
            counted = False
        else:
            tokens += share * call.answer.tokens
        if begin_s <= call.ended_s <= end_s:
            latencies.append(took_s)
    return Measurement(
        generator="own",
        seconds=end_s - begin_s,
        requests=requests,
        texts=texts,
        tokens=tokens if counted else None,
        latencies_s=np.asarray(latencies, dtype=np.float64),
        errors=dict(errors),
        client_cpu_s=recording.client_cpu_s,
        server_cpu_s=server_cpu_s,
    )


def merge(parts: Sequence[Measurement]) -> Measurement:
    """Return several windows against one server as one."""
    errors: Counter[str] = Counter()
    cpu: defaultdict[str, float] = defaultdict(float)
    for part in parts:
        errors.update(part.errors)
        for kind, seconds in (part.server_cpu_s or {}).items():
            cpu[kind] += seconds
    return Measurement(
        generator=parts[0].generator,
        seconds=sum(part.seconds for part in parts),
        requests=sum(part.requests for part in parts),
        texts=sum(part.texts for part in parts),
        tokens=None if any(part.tokens is None for part in parts) else sum(part.tokens or 0.0 for part in parts),
        latencies_s=np.concatenate([part.latencies_s for part in parts]),
        errors=dict(errors),
        client_cpu_s=sum(part.client_cpu_s for part in parts),
        server_cpu_s=None if any(part.server_cpu_s is None for part in parts) else dict(cpu),
    )


def speed(measurement: Measurement) -> float:
    """Return what servers are compared by: tokens a second, or texts where a server does not count tokens."""
    return measurement.tokens_per_s if measurement.tokens_per_s is not None else measurement.texts_per_s


@dataclass(frozen=True, slots=True)
class Ratio:
    """Speed against another server's: the median over rounds, and the rounds' extremes."""

    median: float
    low: float
    high: float


def ratio_of(rounds: Sequence[float], reference: Sequence[float]) -> Ratio | None:
    """Compare round with round, so that a slow minute of the machine hits both sides of each ratio."""
    ratios = [value / other for value, other in zip(rounds, reference, strict=True) if other > 0]
    if not ratios:
        return None
    return Ratio(float(np.median(ratios)), min(ratios), max(ratios))


def to_json(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement's figures, ready for JSON."""
    figures: Mapping[str, Any] = {
        "generator": measurement.generator,
        "seconds": measurement.seconds,
        "requests": measurement.requests,
        "texts": measurement.texts,
        "tokens": measurement.tokens,
        "requests_per_s": measurement.requests_per_s,
        "texts_per_s": measurement.texts_per_s,
        "tokens_per_s": measurement.tokens_per_s,
        "latency_ms": {
            **{f"p{percent:g}": _milliseconds(measurement.percentile_s(percent)) for percent in PERCENTILES},
            "max": _milliseconds(measurement.percentile_s(100.0)),
        },
        "errors": measurement.errors,
        "client_cpu_s": measurement.client_cpu_s,
        "server_cpu_s": measurement.server_cpu_s,
        "server_cpu_s_per_token": measurement.server_cpu_s_per_token,
    }
    return dict(figures)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3

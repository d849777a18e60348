"""The rows of the table: what each compares, against which bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.benchmark.measurement import Measurement, merge, ratio_of, speed

FUSED, SPLIT, LLAMA = "fused", "split", "llama-server"


@dataclass(slots=True)
class Results:
    """Everything measured so far.

    Attributes:
        windows: cell → server's name → its windows, one for each round.
        limits: workload → what the limit script printed in each round.
    """

    windows: dict[str, dict[str, list[Measurement]]] = field(default_factory=dict)
    limits: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def whole(self, cell: str, server: str) -> Measurement | None:
        """Return a server's windows of a cell as one, or None where there are none."""
        parts = self.windows.get(cell, {}).get(server)
        return merge(parts) if parts else None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Attributes:
        met: None where there is no bar.
    """

    row: str
    what: str
    figure: str
    bar: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the cells that it needs, and how its lines are made of them.

    Attributes:
        workload: of the limit script; empty for none.
    """

    title: str
    cells: tuple[str, ...]
    lines: Callable[[str, Results], list[Line]]
    workload: str = ""
    servers: tuple[str, ...] = (FUSED, SPLIT, LLAMA)


def _limit(results: Results, workload: str, key: str = "tokens_per_s") -> list[float]:
    return [float(found[key]) for found in results.limits.get(workload, [])]


def _against(
    row: str, results: Results, cell: str, server: str, other: str, bar: float | None, workload: str
) -> list[Line]:
    """Compare a server's speed with the limit's or with another server's, round with round."""
    parts = results.windows.get(cell, {}).get(server)
    if not parts:
        return []
    own = [speed(part) for part in parts]
    others = results.windows.get(cell, {}).get(other)
    reference = _limit(results, workload) if other == "limit" else [speed(part) for part in others or []]
    if len(reference) != len(own):
        return []
    ratio = ratio_of(own, reference)
    if ratio is None:
        return []
    figure = f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    shown = "" if bar is None else f"≥ {bar:.2f}"
    return [Line(row, f"{server} / {other}", figure, shown, None if bar is None else ratio.median >= bar)]


def _speeds(row: str, results: Results, cell: str, workload: str) -> list[Line]:
    """Show what every side reached, so that the ratios can be checked."""
    lines = []
    limit = _limit(results, workload)
    if limit:
        lines.append(Line(row, "limit", f"{np.mean(limit):.0f} tokens/s"))
    for server in results.windows.get(cell, {}):
        whole = results.whole(cell, server)
        if whole is not None:
            rate = "" if whole.tokens_per_s is None else f"{whole.tokens_per_s:.0f} tokens/s, "
            errors = f", errors: {whole.errors}" if whole.errors else ""
            p50, p99 = whole.percentile_s(50), whole.percentile_s(99)
            times = "" if p50 is None or p99 is None else f", p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
            lines.append(Line(row, server, f"{rate}{whole.requests_per_s:.2f} requests/s{times}{errors}"))
    return lines


def _ratios(
    cell: str, workload: str, bars: tuple[tuple[str, str, float | None], ...]
) -> Callable[[str, Results], list[Line]]:
    def lines(row: str, results: Results) -> list[Line]:
        found = _speeds(row, results, cell, workload)
        for server, other, bar in bars:
            found += _against(row, results, cell, server, other, bar, workload)
        return found

    return lines


def _one_connection(row: str, results: Results) -> list[Line]:
    lines = _speeds(row, results, "one", "")
    alone = _limit(results, "short", "alone_ms")
    if not alone:
        return lines
    raw_ms = float(np.median(alone))
    lines.insert(0, Line(row, "raw encode of one text", f"{raw_ms:.1f} ms"))
    for server, allowed_ms in ((FUSED, 5.0), (SPLIT, 15.0)):
        whole = results.whole("one", server)
        p50_s = whole.percentile_s(50) if whole is not None else None
        if p50_s is not None:
            over_ms = p50_s * 1e3 - raw_ms
            lines.append(
                Line(
                    row,
                    f"{server}: p50 over the raw encode",
                    f"{over_ms:.1f} ms",
                    f"≤ {allowed_ms:.0f} ms",
                    over_ms <= allowed_ms,
                )
            )
    return lines


def _interactive(row: str, results: Results) -> list[Line]:
    lines = []
    micro_batch_ms = float(np.median(_limit(results, "batch", "micro_batch_ms") or [0.0]))
    for server in results.windows.get("bulk", {}):
        idle, loaded = results.whole("idle", server), results.whole("bulk", server)
        idle_s = idle.percentile_s(99) if idle is not None else None
        loaded_s = loaded.percentile_s(99) if loaded is not None else None
        if idle_s is None or loaded_s is None:
            continue
        allowed_ms = 3 * idle_s * 1e3 + micro_batch_ms
        figure = f"{loaded_s * 1e3:.0f} ms (idle: {idle_s * 1e3:.0f} ms)"
        ours = server in (FUSED, SPLIT)
        bar = f"≤ {allowed_ms:.0f} ms" if ours else ""
        lines.append(Line(row, f"{server}: p99", figure, bar, loaded_s * 1e3 <= allowed_ms if ours else None))
    return lines


def _cpu(row: str, results: Results) -> list[Line]:
    lines = []
    taken: dict[str, float] = {}
    for server in results.windows.get("batch", {}):
        whole = results.whole("batch", server)
        if whole is not None and whole.server_cpu_s_per_token is not None:
            taken[server] = whole.server_cpu_s_per_token
            lines.append(Line(row, server, f"{taken[server] * 1e6:.0f} CPU-ms per 1,000 tokens"))
    if FUSED in taken and SPLIT in taken:
        ratio = taken[SPLIT] / taken[FUSED]
        lines.append(Line(row, "split / fused", f"{ratio:.2f}", "≤ 1.10", ratio <= 1.1))
    return lines


_SHORT_BARS = ((FUSED, "limit", 0.75), (FUSED, LLAMA, 1.0), (SPLIT, "limit", 0.60), (LLAMA, "limit", None))

ROWS: Mapping[str, Row] = {
    "batch": Row(
        "4 connections, 32 texts of 20-100 words",
        ("batch",),
        _ratios(
            "batch",
            "batch",
            ((SPLIT, "limit", 0.90), (SPLIT, LLAMA, 1.4), (FUSED, "limit", None), (LLAMA, "limit", None)),
        ),
        "batch",
    ),
    "short16": Row(
        "16 connections, one text of 17 tokens", ("short16",), _ratios("short16", "short", _SHORT_BARS), "short"
    ),
    "short64": Row(
        "64 connections, one text of 17 tokens", ("short64",), _ratios("short64", "short", _SHORT_BARS), "short"
    ),
    "mixed": Row(
        "16 connections, one text of 20-200 words",
        ("mixed",),
        _ratios(
            "mixed",
            "mixed",
            ((SPLIT, "limit", 0.85), (SPLIT, LLAMA, 1.4), (FUSED, "limit", None), (LLAMA, "limit", None)),
        ),
        "mixed",
    ),
    "one": Row("1 connection, one short text", ("one",), _one_connection, "short"),
    "interactive": Row("interactive p99 while bulk saturates", ("idle", "bulk"), _interactive, "batch"),
    "none": Row(
        "token matrices as binary, 4 connections",
        ("none",),
        _ratios("none", "batch", ((FUSED, "limit", 0.80), (SPLIT, "limit", 0.80))),
        "batch",
        servers=(FUSED, SPLIT),
    ),
    "cpu": Row("CPU time for encoded tokens, batches of 32", ("batch",), _cpu),
    "rerank": Row(
        "one query, 100 documents of about 100 tokens",
        ("rerank",),
        _ratios("rerank", "rerank", ((FUSED, "limit", None), (SPLIT, "limit", 0.85))),
        "rerank",
        servers=(FUSED, SPLIT),
    ),
    "qwen3": Row(
        "random Qwen3 of 0.6B's widths, 8 layers",
        ("qwen3",),
        _ratios("qwen3", "qwen3", ((FUSED, LLAMA, 1.4), (SPLIT, LLAMA, 1.4))),
    ),
}

"""Tables for people and JSON for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.benchmark.generator import Schedule
from cluster.benchmark.measurement import Measurement, Ratio, merge, ratio_of, speed, to_json
from cluster.benchmark.workloads import Workload


def ratios(windows: Mapping[str, Sequence[Measurement]]) -> dict[str, Ratio | None]:
    """Return every server's speed against the first server's."""
    reference = [speed(window) for window in next(iter(windows.values()))]
    return {name: ratio_of([speed(window) for window in parts], reference) for name, parts in windows.items()}


def format_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with columns aligned; the first column to the left, the others to the right. The first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def print_report(
    windows: Mapping[str, Sequence[Measurement]], workload: Workload, schedule: Schedule, rounds: int
) -> list[str]:
    """Return the lines of the table and the notes below it."""
    against_first = ratios(windows)
    head = ["", "requests/s", "texts/s", "tokens/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "errors", "client CPU"]
    watched = any(parts[0].server_cpu_s is not None for parts in windows.values())
    if watched:
        head += ["server CPU", "CPU ms/1k tokens"]
    compared = len(windows) > 1
    if compared:
        head += ["ratio", "rounds"]
    rows = [head]
    notes = [_headline(workload, schedule, rounds, windows)]
    for name, parts in windows.items():
        whole = merge(parts)
        row = [name, f"{whole.requests_per_s:.1f}", f"{whole.texts_per_s:.1f}", _number(whole.tokens_per_s, "{:.0f}")]
        row += [_number(whole.percentile_s(percent), "{:.1f}", 1e3) for percent in (50, 90, 99, 100)]
        row += [str(sum(whole.errors.values())), _share(whole.client_cpu_s, whole.seconds)]
        if watched:
            taken_s = None if whole.server_cpu_s is None else sum(whole.server_cpu_s.values())
            row += [
                "-" if taken_s is None else _share(taken_s, whole.seconds),
                _number(whole.server_cpu_s_per_token, "{:.1f}", 1e6),
            ]
        if compared:
            ratio = against_first[name]
            row += ["-", "-"] if ratio is None else [f"{ratio.median:.2f}", f"{ratio.low:.2f}-{ratio.high:.2f}"]
        rows.append(row)
        notes += _notes(name, whole)
    return [*notes[:1], *format_table(rows), *notes[1:]]


def _headline(workload: Workload, schedule: Schedule, rounds: int, windows: Mapping[str, Sequence[Measurement]]) -> str:
    loop = f"{schedule.connections} connections" if schedule.connections > 1 else "1 connection"
    if schedule.rate is not None:
        loop = f"{schedule.rate:g} requests/s arriving at random (at most {loop})"
    amount = f"{schedule.requests} requests" if schedule.requests is not None else f"{schedule.duration_s:g} s"
    generators = sorted({window.generator for parts in windows.values() for window in parts})
    return (
        f"{workload.name} ({workload.description}), {loop}, {amount} a round, {rounds} round(s), "
        f"generator: {' and '.join(generators)}"
    )


def _notes(name: str, whole: Measurement) -> list[str]:
    notes = []
    if whole.errors:
        listed = ", ".join(f"{fault} × {count}" for fault, count in sorted(whole.errors.items()))
        notes.append(f"{name}: errors: {listed}")
    if whole.tokens is None:
        notes.append(f"{name}: its answers do not say how many tokens were encoded; texts are compared instead")
    if whole.server_cpu_s:
        taken = sorted(whole.server_cpu_s.items(), key=lambda pair: -pair[1])
        listed = ", ".join(f"{kind} {_share(seconds, whole.seconds)}" for kind, seconds in taken if seconds > 0)
        notes.append(f"{name}: CPU of one core by process: {listed}")
    return notes


def report_json(windows: Mapping[str, Sequence[Measurement]], workload: Workload, schedule: Schedule) -> dict[str, Any]:
    """Return everything, ready for JSON."""
    against_first = ratios(windows)
    return {
        "workload": workload.name,
        "connections": schedule.connections,
        "rate": schedule.rate,
        "warm_up_s": schedule.warm_up_s,
        "servers": {
            name: {
                **to_json(merge(parts)),
                "ratio_to_first": ratio_json(against_first[name]),
                "rounds": [to_json(part) for part in parts],
            }
            for name, parts in windows.items()
        },
    }


def ratio_json(ratio: Ratio | None) -> dict[str, float] | None:
    """Return a ratio, ready for JSON."""
    return None if ratio is None else {"median": ratio.median, "low": ratio.low, "high": ratio.high}


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "-" if value is None else form.format(value * scale)


def _share(cpu_s: float, seconds: float) -> str:
    return f"{100 * cpu_s / seconds:.0f}%"

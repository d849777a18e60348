"""A comparison in words and plain-text tables, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster.evaluation.bootstrap import Interval
from cluster.evaluation.comparison import Comparison

PRINTED_GEOMETRY = ("alignment", "uniformity", "anisotropy")


def figure_of(value: float | None) -> str:
    """Print a figure with four decimals, or a dash for none."""
    return "-" if value is None else f"{value:.4f}"


def describe_data(comparison: Comparison) -> str:
    """Say in one sentence or two what was measured on what."""
    sizes = "; ".join(task.size for task in comparison.tasks)
    trained = comparison.facts.trained_pooling
    said = f"It was trained for {trained}, says its GGUF" if trained else "It does not say what it was trained for"
    return (
        f"{comparison.facts.name} ({comparison.facts.architecture}). {said}. Data: {sizes}; "
        f"{len(comparison.spaces.index)} different texts, {comparison.spaces.tokens} tokens, encoded once."
    )


def print_comparison(comparison: Comparison) -> list[str]:
    """Return the comparison as lines for the terminal."""
    lines = [describe_data(comparison)]
    for task in comparison.tasks:
        lines += ["", f"{task.size} (larger is better; 95 % intervals)"]
        head = ["pooling type", *(metric.name for metric in task.metrics)]
        rows = [
            [str(pooling), *(_with_interval(metric.estimates[pooling]) for metric in task.metrics)]
            for pooling in comparison.pooling_types
        ]
        lines += _aligned([head, *rows])
    verdicts = comparison.recommendation.verdicts
    if verdicts:
        lines += ["", f"differences (paired bootstrap, {comparison.settings.resamples} resamples)"]
        lines += _aligned(
            [
                f"{verdict.best} - {verdict.other}",
                verdict.metric,
                _with_interval(verdict.difference),
                "noise" if verdict.noise else "real",
            ]
            for verdict in verdicts
        )
    lines += ["", "shape of the spaces (smaller is better; explains, does not decide)"]
    lines += _aligned(
        [
            ["pooling type", *PRINTED_GEOMETRY],
            *(
                [str(pooling), *(figure_of(getattr(geometry, name)) for name in PRINTED_GEOMETRY)]
                for pooling, geometry in comparison.geometry.items()
            ),
        ]
    )
    lines += ["", *(f"not compared: {pooling}: {why}" for pooling, why in comparison.left_out.items())]
    lines += ["", f"Use {comparison.recommendation.pooling}. {comparison.recommendation.reason}"]
    return lines


def _with_interval(interval: Interval) -> str:
    return f"{figure_of(interval.value)} [{figure_of(interval.low)}, {figure_of(interval.high)}]"


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]

"""A comparison for people: one HTML file that needs no network, and its pictures as PNG files."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from cluster.errors import InvalidRequest
from cluster.evaluation.bootstrap import Interval
from cluster.evaluation.comparison import Comparison
from cluster.evaluation.plots import Picture, draw_all
from cluster.evaluation.wording import PRINTED_GEOMETRY, describe_data, figure_of

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 0.6rem 0; }
th, td { border-bottom: 1px solid #ccc; padding: 0.3rem 0.9rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
td.words { text-align: left; }
td small { color: #595959; white-space: nowrap; }
tr.chosen { background: #e8f1f8; }
.answer { border-left: 6px solid #0072B2; background: #f2f7fb; padding: 0.7rem 1.1rem; }
.warning { border-left: 6px solid #D55E00; background: #fdf3ec; padding: 0.4rem 1.1rem; margin: 0.5rem 0; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
figcaption, .note { color: #595959; font-size: 0.92rem; }
"""


def prepare_folder(folder: Path) -> None:
    """Make the folder, before work is put into what shall go there.

    Raises:
        InvalidRequest: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"the folder {folder} cannot be made: {error.strerror}; give another") from error


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``report.html`` and the pictures into ``folder``, made if need be; returns the files.

    Raises:
        InvalidRequest: the folder cannot be written.
    """
    prepare_folder(folder)
    pictures = draw_all(comparison)
    files = {f"{picture.name}.png": picture.png for picture in pictures}
    files["report.html"] = render_html(comparison, pictures).encode("utf-8", "replace")
    try:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise InvalidRequest(
            f"the report cannot be written to {folder}: {error.strerror}; give another folder"
        ) from error
    return [folder / name for name in files]


def render_html(comparison: Comparison, pictures: Sequence[Picture]) -> str:
    """Return the report as one HTML page with its pictures inside."""
    recommendation = comparison.recommendation
    parts = [
        f"<h1>Pooling types of {_safe(comparison.facts.name)}</h1>",
        f'<div class="answer"><strong>Use {_safe(recommendation.pooling)}.</strong> {_safe(recommendation.reason)}</div>',
        *(f'<div class="warning">{_safe(warning)}</div>' for warning in comparison.warnings),
        f'<p class="note">{_safe(describe_data(comparison))}</p>',
        *_metric_tables(comparison),
        *_differences(comparison),
        *_geometry(comparison),
        "<h2>Pictures</h2>",
        *(_figure(picture) for picture in pictures),
        *_left_out(comparison),
    ]
    title = f"Pooling types of {_safe(comparison.facts.name)}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _metric_tables(comparison: Comparison) -> Iterable[str]:
    for task in comparison.tasks:
        yield f"<h2>{_safe(task.size)}</h2>"
        rows = [
            (pooling, [_with_interval(metric.estimates[pooling]) for metric in task.metrics])
            for pooling in comparison.pooling_types
        ]
        yield _table(["pooling type", *(metric.name for metric in task.metrics)], rows, comparison)
        yield f'<p class="note">Larger is better; {_safe(task.deciding.name)} decides. In brackets: the 95 % interval.</p>'


def _differences(comparison: Comparison) -> Iterable[str]:
    verdicts = comparison.recommendation.verdicts
    if not verdicts:
        return
    yield "<h2>Is the difference real?</h2>"
    yield "<table><tr><th>compared</th><th>metric</th><th>difference</th><th>verdict</th></tr>"
    for verdict in verdicts:
        words = "noise: these data cannot tell them apart" if verdict.noise else f"real: {verdict.best} is better"
        yield (
            f"<tr><td>{_safe(verdict.best)} − {_safe(verdict.other)}</td><td>{_safe(verdict.metric)}</td>"
            f'<td>{_with_interval(verdict.difference)}</td><td class="words">{_safe(words)}</td></tr>'
        )
    yield "</table>"
    yield (
        f'<p class="note">Paired bootstrap, {comparison.settings.resamples} resamples, seed {comparison.settings.seed}. '
        "The intervals of one metric hold together with 95 % confidence (Bonferroni).</p>"
    )


def _geometry(comparison: Comparison) -> Iterable[str]:
    yield "<h2>Shape of the spaces</h2>"
    rows = [
        (pooling, [figure_of(getattr(geometry, name)) for name in PRINTED_GEOMETRY])
        for pooling, geometry in comparison.geometry.items()
    ]
    yield _table(["pooling type", *PRINTED_GEOMETRY], rows, comparison)
    yield (
        '<p class="note">Alignment: mean squared distance of texts that belong together; smaller is closer. Uniformity: '
        "0 is a single point, about −4 an even spread over the sphere. Anisotropy: mean cosine of two different texts; near 1 "
        "all vectors point the same way. These figures explain a result, they do not decide.</p>"
    )


def _left_out(comparison: Comparison) -> Iterable[str]:
    yield "<h2>Not compared</h2>"
    yield "<table><tr><th>pooling type</th><th>why</th></tr>"
    for pooling, why in comparison.left_out.items():
        yield f'<tr><td>{_safe(pooling)}</td><td class="words">{_safe(why)}</td></tr>'
    yield "</table>"
    if comparison.data.skipped:
        yield f"<h2>Rows left out: {len(comparison.data.skipped)}</h2><ul>"
        yield from (f"<li>{_safe(fault)}</li>" for fault in comparison.data.skipped)
        yield "</ul>"


def _figure(picture: Picture) -> str:
    encoded = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure><h3>{_safe(picture.title)}</h3><img alt="{_safe(picture.title)}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{_safe(picture.caption)}</figcaption></figure>"
    )


def _table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], comparison: Comparison) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{_safe(name)}</th>" for name in head) + "</tr>"]
    for name, cells in rows:
        chosen = ' class="chosen"' if name == comparison.recommendation.pooling else ""
        lines.append(f"<tr{chosen}><td>{_safe(name)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _with_interval(interval: Interval) -> str:
    return f"{figure_of(interval.value)} <small>[{figure_of(interval.low)}, {figure_of(interval.high)}]</small>"


def _safe(text: str) -> str:
    return html.escape(text, quote=True)

"""The picture of a run: how latencies are distributed, and how they climb towards the slowest requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cluster.benchmark.measurement import Measurement
from cluster.errors import InvalidRequest
from cluster.evaluation.figures import COLOURS, GREY, MARKERS, new_figure, png_bytes

_BINS = 60
_MARKED = (50.0, 90.0, 99.0, 99.9)


def draw_latencies(measurements: Mapping[str, Measurement], title: str) -> bytes:
    """Return a PNG: distributions on the left, percentiles on the right, one colour for each server.

    Raises:
        InvalidRequest: no request was answered.
    """
    found = {name: whole.latencies_s * 1e3 for name, whole in measurements.items() if len(whole.latencies_s)}
    if not found:
        raise InvalidRequest("no request was answered, so there are no latencies to draw")
    # Imported late: only a picture needs it, and it takes longer to load than all the rest.
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = new_figure(11.0, 4.4)
    left, right = figure.subplots(1, 2)
    lowest = max(1e-3, min(float(values.min()) for values in found.values()))
    highest = max(float(values.max()) for values in found.values())
    # Equal bins on a logarithmic axis: servers that differ tenfold fit on one picture.
    edges = np.geomspace(lowest * 0.9, highest * 1.1, _BINS + 1)
    for index, (name, values) in enumerate(found.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        shares, _ = np.histogram(values, edges)
        left.stairs(100 * shares / len(values), edges, color=colour, linewidth=1.8, label=name)
        left.axvline(float(np.median(values)), color=colour, linestyle=":", linewidth=1.2)
        # The share of slower requests, on a logarithmic axis: every step is one more nine.
        last = 1.0 - 1.0 / max(2, len(values))
        ranks = 1.0 - np.geomspace(0.9, 1.0 - last, 200)
        right.plot(100 * (1.0 - ranks), np.quantile(values, ranks), color=colour, linewidth=1.8, label=name)
        marked = [percent for percent in _MARKED if percent / 100 <= last]
        right.plot(
            [100 - percent for percent in marked],
            np.percentile(values, marked),
            marker,
            color=colour,
            markersize=6,
        )
    left.set_xscale("log")
    left.set_xlabel("latency, ms")
    left.set_ylabel("requests, %")
    left.set_title("Distribution (dotted: median)", fontsize=11)
    right.set_xscale("log")
    right.invert_xaxis()
    right.set_yscale("log")
    right.set_xticks([100 - percent for percent in _MARKED], [f"p{percent:g}" for percent in _MARKED])
    right.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    right.set_xlabel("percentile")
    right.set_ylabel("latency, ms")
    right.set_title("Percentiles", fontsize=11)
    right.legend(frameon=False, fontsize=10)
    for scale in (left.xaxis, right.yaxis):
        # 1, 2, 5, 10 in plain numbers rather than powers of ten.
        scale.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        scale.set_major_formatter("{x:g}")
        scale.set_minor_formatter(NullFormatter())
    for axis in (left, right):
        axis.grid(color="#dddddd", which="major")
        axis.set_axisbelow(True)
        for spine in ("top", "right"):
            axis.spines[spine].set_visible(False)
    figure.suptitle(title, fontsize=11, color=GREY)
    return png_bytes(figure)


def write_plot(path: Path, png: bytes) -> None:
    """Write a picture.

    Raises:
        InvalidRequest: the file cannot be written.
    """
    try:
        path.write_bytes(png)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}; give --plot another path") from error

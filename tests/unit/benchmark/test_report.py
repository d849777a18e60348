from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from cluster.benchmark.generator import Schedule
from cluster.benchmark.measurement import Measurement
from cluster.benchmark.plots import draw_latencies, write_plot
from cluster.benchmark.report import format_table, print_report, ratios, report_json
from cluster.benchmark.workloads import WORKLOADS
from cluster.errors import InvalidRequest

SCHEDULE = Schedule(16)


def window(tokens: float | None, latency_s: float = 0.1, **options: object) -> Measurement:
    latencies = np.full(50, latency_s)
    return Measurement("own", 10.0, 50.0, 50.0, tokens, latencies, **options)  # type: ignore[arg-type]


def windows(**second: object) -> dict[str, list[Measurement]]:
    return {"ours": [window(1000.0), window(3000.0)], "other": [window(500.0, 0.4, **second), window(600.0, 0.4)]}


def test_columns_are_aligned() -> None:
    assert format_table([["", "a"], ["long name", "10"], ["b", "3"]]) == [
        "            a",
        "long name  10",
        "b           3",
    ]


def test_a_table_has_a_line_for_each_server_with_its_ratio_to_the_first() -> None:
    lines = print_report(windows(), WORKLOADS["short"], SCHEDULE, 2)
    assert lines[0] == ("short (one text of about 17 tokens), 16 connections, 10 s a round, 2 round(s), generator: own")
    ours, other = lines[2].split(), lines[3].split()
    assert ours[:4] == ["ours", "5.0", "5.0", "200"]
    assert ours[-2:] == ["1.00", "1.00-1.00"]
    assert other[-2:] == ["0.35", "0.20-0.50"]
    assert other[4:8] == ["400.0"] * 4


def test_errors_and_uncounted_tokens_are_said_below_the_table() -> None:
    found = windows(errors={"503": 2, "timeout": 1})
    found["other"][1].tokens = None
    text = "\n".join(print_report(found, WORKLOADS["short"], SCHEDULE, 2))
    assert "other: errors: 503 × 2, timeout × 1" in text
    assert "other: its answers do not say how many tokens" in text


def test_the_servers_cpu_time_is_shown_by_process() -> None:
    alone = {"ours": [window(1000.0, server_cpu_s={"Encoder": 12.0, "haproxy": 1.0})]}
    lines = print_report(alone, WORKLOADS["short"], SCHEDULE, 1)
    assert lines[2].split()[-2:] == ["130%", "13000.0"]
    assert lines[-1] == "ours: CPU of one core by process: Encoder 120%, haproxy 10%"


def test_ratios_are_none_where_the_first_server_answered_nothing() -> None:
    assert ratios({"dead": [window(0.0)], "ours": [window(10.0)]})["ours"] is None


def test_json_holds_totals_rounds_and_ratios() -> None:
    printed = json.loads(json.dumps(report_json(windows(), WORKLOADS["short"], SCHEDULE)))
    other = printed["servers"]["other"]
    assert other["ratio_to_first"] == {"median": pytest.approx(0.35), "low": 0.2, "high": 0.5}
    assert [part["tokens"] for part in other["rounds"]] == [500.0, 600.0]
    assert other["tokens"] == 1100.0


def test_the_picture_is_a_png_with_something_on_it(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    measured = {"ours": window(1.0), "other": window(1.0)}
    for scale, found in enumerate(measured.values(), 1):
        found.latencies_s = chance.gamma(4.0, 0.01 * scale, 500)
    path = tmp_path / "latencies.png"
    write_plot(path, draw_latencies(measured, "short"))
    pixels = imread(path)
    assert pixels.shape[0] > 300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10


def test_equal_latencies_and_a_single_one_can_be_drawn() -> None:
    single = window(1.0)
    single.latencies_s = np.asarray([0.02])
    assert draw_latencies({"equal": window(1.0), "single": single}, "t").startswith(b"\x89PNG")


def test_nothing_to_draw_and_no_place_to_write_are_errors(tmp_path: Path) -> None:
    empty = window(1.0)
    empty.latencies_s = np.zeros(0)
    with pytest.raises(InvalidRequest, match="no request was answered"):
        draw_latencies({"a": empty}, "t")
    with pytest.raises(InvalidRequest, match="cannot be written"):
        write_plot(tmp_path / "missing" / "a.png", b"")

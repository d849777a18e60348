from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import scaling
from benchmarks.cells import CELLS
from benchmarks.rows import FUSED, LLAMA, ROWS, SPLIT, Line, Results
from benchmarks.run import print_lines
from benchmarks.servers import ROOT, poolhouse_config
from cluster.benchmark.measurement import Measurement
from cluster.config import parse_config


def window(tokens_per_s: float, latency_s: float = 0.01, cpu_s: float = 10.0) -> Measurement:
    latencies = np.full(20, latency_s)
    return Measurement("own", 10.0, 20.0, 20.0, 10 * tokens_per_s, latencies, server_cpu_s={"Encoder": cpu_s})


def limit(tokens_per_s: float) -> dict[str, float]:
    return {"tokens_per_s": tokens_per_s, "alone_ms": 4.0, "micro_batch_ms": 50.0}


def lines_of(row: str, results: Results) -> dict[str, Line]:
    return {line.what: line for line in ROWS[row].lines(ROWS[row].title, results)}


def test_every_row_names_cells_that_exist() -> None:
    assert {cell for row in ROWS.values() for cell in row.cells} == set(CELLS)


def test_ratios_are_taken_round_by_round_and_judged_by_their_median() -> None:
    windows = {SPLIT: [window(900), window(500), window(950)], LLAMA: [window(500), window(500), window(1000)]}
    results = Results({"batch": windows}, {"batch": [limit(1000)] * 3})
    lines = lines_of("batch", results)
    against_limit = lines["split / limit"]
    assert (against_limit.figure, against_limit.bar, against_limit.met) == ("0.90 (0.50-0.95)", "≥ 0.90", True)
    against_llama = lines["split / llama-server"]
    assert (against_llama.figure, against_llama.met) == ("1.00 (0.95-1.80)", False)
    assert lines["limit"].figure == "1000 tokens/s"


def test_a_server_that_missed_a_round_has_no_ratio() -> None:
    results = Results({"batch": {SPLIT: [window(900)]}}, {"batch": [limit(1000)] * 2})
    assert "split / limit" not in lines_of("batch", results)


def test_one_connection_is_judged_by_what_it_adds_to_the_raw_encode() -> None:
    windows = {FUSED: [window(100, 0.0085)], SPLIT: [window(100, 0.0195)]}
    lines = lines_of("one", Results({"one": windows}, {"short": [limit(1000)]}))
    fused, split = lines["fused: p50 over the raw encode"], lines["split: p50 over the raw encode"]
    assert (fused.figure, fused.met) == ("4.5 ms", True)
    assert (split.figure, split.met) == ("15.5 ms", False)


def test_the_interactive_bar_is_three_times_idle_and_one_micro_batch() -> None:
    windows = {"idle": {SPLIT: [window(1, 0.010)]}, "bulk": {SPLIT: [window(1, 0.081)]}}
    line = lines_of("interactive", Results(windows, {"batch": [limit(1)]}))["split: p99"]
    assert (line.figure, line.bar, line.met) == ("81 ms (idle: 10 ms)", "≤ 80 ms", False)


def test_cpu_time_is_compared_for_each_token() -> None:
    windows = {"batch": {FUSED: [window(100, cpu_s=10.0)], SPLIT: [window(200, cpu_s=21.0)]}}
    line = lines_of("cpu", Results(windows))["split / fused"]
    assert (line.figure, line.met) == ("1.05", True)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_without_results_has_no_lines(row: str) -> None:
    assert lines_of(row, Results()) == {}


def test_the_table_prints_each_title_once_with_its_verdicts() -> None:
    printed = print_lines([Line("a row", "x", "1.0", "≥ 0.9", True), Line("a row", "y", "0.5", "≥ 0.9", False)])
    assert printed[1:] == ["a row", "  x  1.0  ≥ 0.9     met", "  y  0.5  ≥ 0.9  missed"]


@pytest.mark.parametrize("wiring", [FUSED, SPLIT])
def test_servers_run_the_shipped_configuration_on_another_port(wiring: str) -> None:
    config = poolhouse_config(wiring, 4321, {})
    shipped = yaml.safe_load((ROOT / "configs" / ("local.yaml" if wiring == FUSED else "split.yaml")).read_text())
    assert config["http_options"].pop("port") == 4321
    shipped["http_options"].pop("port")
    assert config == shipped


def test_other_encoders_get_deployments_of_their_own() -> None:
    args = {"models": {"m": {"source": "fake"}}, "encoders": {"e": {"model": "m", "engine": "fake"}}}
    application = poolhouse_config(SPLIT, 1, args, 4)["applications"][0]
    names = [entry["name"] for entry in application["deployments"]]
    assert names == ["Ingress", "Tokenizer", "Pooler", "Encoder-e"]
    assert application["deployments"][-1]["num_replicas"] == 4
    assert parse_config(application["args"]).encoders["e"].engine == "fake"


def test_the_scaling_table_names_the_busiest_processes() -> None:
    record = {
        "replicas": 4,
        "workload": "short",
        "connections": 128,
        "requests_per_s": 100.0,
        "tokens_per_s": None,
        "of_capacity": 0.5,
        "client_cores": 0.1,
        "cores": {"Ingress": 0.9, "raylet": 0.1, "Encoder-fake": 0.4},
    }
    assert scaling.table([record])[1].endswith("Ingress 0.90, Encoder-fake 0.40, raylet 0.10")


def test_the_scripts_are_where_make_calls_them() -> None:
    makefile = (Path(ROOT) / "Makefile").read_text(encoding="utf-8")
    assert "-m benchmarks.run" in makefile

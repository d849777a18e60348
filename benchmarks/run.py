"""``make bench``: the limit, Poolhouse fused, Poolhouse split and other servers, side by side in one run.

Two Ray servers would disturb each other, so each side is started, measured on every row and ended, and the whole is done in
rounds; a ratio is taken within its round. Ends every process that it has started.

    python -m benchmarks.run --quick
    python -m benchmarks.run --rows batch cpu --llama-server /path/to/llama-server
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import scaling
from benchmarks.cells import CELLS, run_cell
from benchmarks.rows import FUSED, LLAMA, ROWS, SPLIT, Line, Results
from benchmarks.servers import llama_server, poolhouse
from cluster.benchmark.measurement import to_json
from cluster.benchmark.plots import draw_latencies, write_plot
from cluster.benchmark.report import format_table
from cluster.benchmark.runs import Server, model_of
from cluster.config import ModelConfig
from cluster.errors import PoolhouseError
from cluster.models import resolve

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "package:all-minilm-l6-v2"
QWEN3_LAYERS = 8
QUICK_SIZES = ("128", "256", "512")


class Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results = Results()
        self.rows = [name for name in options.rows if name in ROWS]
        self.seconds = options.seconds or (4.0 if options.quick else 10.0)
        self.rounds = options.rounds or (1 if options.quick else 3)
        self.threads = len(os.sched_getaffinity(0))
        self.log = options.out / "servers.log"
        self.began_s = time.monotonic()
        self.faults: list[str] = []

    def say(self, text: str) -> None:
        """Tell how far the run is."""
        print(f"[{time.monotonic() - self.began_s:5.0f} s] {text}", file=sys.stderr, flush=True)

    def run(self) -> None:
        """Measure all rounds of all rows."""
        gguf = resolve(ModelConfig(source=SOURCE))
        for number in range(self.rounds):
            self.say(f"round {number + 1} of {self.rounds}")
            self._limits(gguf, number)
            rows = [row for row in self.rows if row != "qwen3"]
            if rows:
                for wiring in (FUSED, SPLIT):
                    self._against(rows, wiring, number, lambda wiring=wiring: poolhouse(wiring, self.log))
                self._others(rows, gguf, ["--pooling", "mean"], number)
        if "qwen3" in self.rows:
            # Long windows and slow starts: one round.
            self._qwen3()

    def _limits(self, gguf: Path, number: int) -> None:
        for workload in dict.fromkeys(ROWS[row].workload for row in self.rows):
            if not workload:
                continue
            found = self.results.limits.setdefault(workload, [])
            command = [
                sys.executable,
                str(ROOT / "benchmarks" / "limit.py"),
                "--gguf",
                str(gguf),
                "--workload",
                workload,
            ]
            command += ["--threads", str(self.threads), "--seconds", str(self.seconds / 2)]
            if self.options.quick:
                command += ["--sizes", *QUICK_SIZES]
            if found:
                # The sweep of the first round is good for all.
                command += ["--contexts", str(found[0]["contexts"]), "--sizes", str(found[0]["micro_batch_tokens"])]
            self.say(f"limit: {workload}")
            found.append(json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout))

    def _against(
        self, rows: list[str], name: str, number: int, start: Callable[[], contextlib.AbstractContextManager[Server]]
    ) -> None:
        """Start a server, measure the cells of ``rows`` that concern it, end it."""
        cells = dict.fromkeys(cell for row in rows if _concerns(row, name) for cell in ROWS[row].cells)
        if not cells:
            return
        self.say(f"{name}: starting")
        with start() as server:
            for cell in cells:
                self.say(f"{name}: {cell}")
                window = run_cell(CELLS[cell], server, self.seconds, seed=1000 * number)
                if not window.requests:
                    # A route that a server does not have shows in its first window.
                    self.faults.append(f"{name}, {cell}: no request was answered well: {window.errors}")
                    continue
                self.results.windows.setdefault(cell, {}).setdefault(name, []).append(window)

    def _others(self, rows: list[str], gguf: Path, arguments: list[str], number: int) -> None:
        program = self.options.llama_server
        if program:
            slots = ["-t", str(self.threads), "-tb", str(self.threads), "-np", "64", "-c", str(64 * 512)]
            self._against(
                rows,
                LLAMA,
                number,
                lambda: llama_server(program, gguf, [*arguments, *slots, *self.options.llama_args], self.log),
            )
        for given in self.options.server:
            name, _, url = given.rpartition("=")
            named = name or url
            server = Server(named, url, model_of(url, None))
            self._against(rows, named, number, lambda server=server: contextlib.nullcontext(server))

    def _qwen3(self) -> None:
        gguf = self.options.out / f"qwen3-{QWEN3_LAYERS}.gguf"
        if not gguf.exists():
            self.say(f"writing {gguf}")
            command = [sys.executable, "-m", "tests.support.ggufs.large", str(gguf), "--layers", str(QWEN3_LAYERS)]
            subprocess.run(command, cwd=ROOT, check=True)
        args: dict[str, Any] = {
            "models": {"qwen3": {"source": str(gguf)}},
            "encoders": {"qwen3": {"model": "qwen3", "context_tokens": 512, "threads": self.threads}},
        }
        rows = ["qwen3"]
        for wiring in (FUSED,) if self.options.quick else (FUSED, SPLIT):
            self._against(rows, wiring, 0, lambda wiring=wiring: poolhouse(wiring, self.log, args))
        self._others(rows, gguf, ["--pooling", "last"], 0)

    def lines(self) -> list[Line]:
        """Return the table's lines."""
        return [line for row in self.rows for line in ROWS[row].lines(ROWS[row].title, self.results)]


def _concerns(row: str, server: str) -> bool:
    # Other servers take every row but those that only Poolhouse has a route for.
    return server in ROWS[row].servers or (server not in (FUSED, SPLIT) and LLAMA in ROWS[row].servers)


def print_lines(lines: list[Line]) -> list[str]:
    """Return the table as text: each row's title once, then its lines."""
    printed: list[str] = []
    for title in dict.fromkeys(line.row for line in lines):
        own = [line for line in lines if line.row == title]
        rows = [["  " + line.what, line.figure, line.bar, _verdict(line)] for line in own]
        printed += ["", title, *format_table(rows)]
    return printed


def _verdict(line: Line) -> str:
    return "" if line.met is None else ("met" if line.met else "missed")


def write(bench: Bench, lines: list[Line], scaled: list[dict[str, Any]]) -> None:
    """Write figures as JSON, and a picture of every cell's latencies."""
    results = bench.results
    document = {
        "quick": bench.options.quick,
        "rounds": bench.rounds,
        "seconds": bench.seconds,
        "threads": bench.threads,
        "limits": results.limits,
        "cells": {
            cell: {name: [to_json(part) for part in parts] for name, parts in sides.items()}
            for cell, sides in results.windows.items()
        },
        "lines": [
            {"row": line.row, "what": line.what, "figure": line.figure, "bar": line.bar, "met": line.met}
            for line in lines
        ],
        "scaling": scaled,
        "faults": bench.faults,
    }
    path = bench.options.out / "results.json"
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    for cell, sides in results.windows.items():
        measured = {name: whole for name in sides if (whole := results.whole(cell, name)) is not None}
        if not any(len(whole.latencies_s) for whole in measured.values()):
            continue
        description = f"{CELLS[cell].workload.description}, {CELLS[cell].connections} connection(s)"
        write_plot(bench.options.out / f"{cell}.png", draw_latencies(measured, f"{cell}: {description}"))
    print(f"written: {path} and pictures beside it")


def parse() -> argparse.Namespace:
    """Read the arguments; ``make bench`` passes its variables through."""
    every = [*ROWS, "scaling"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=every, help="default: all that apply; --quick leaves out scaling")
    parser.add_argument("--quick", action="store_true", help="one short round, about 6 minutes on 2 cores")
    parser.add_argument("--llama-server", default=os.environ.get("LLAMA_SERVER"), help="program to compare with")
    parser.add_argument("--llama-args", nargs=argparse.REMAINDER, default=[], help="further arguments for it (last)")
    parser.add_argument(
        "--server", action="append", default=[], metavar="NAME=URL", help="a running server to compare with"
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of a window")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args()
    options.rows = options.rows or [name for name in every if not (options.quick and name == "scaling")]
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def main() -> int:
    """Measure, print, write; returns the exit code: 2 where a server could not be measured at all."""
    options = parse()
    # A plain end by SIGTERM would leave the servers running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    bench = Bench(options)
    try:
        bench.run()
        scaled = (
            scaling.run(bench.log, bench.seconds, bench.say, quick=options.quick) if "scaling" in options.rows else []
        )
    except PoolhouseError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 2
    lines = bench.lines()
    print("\n".join(print_lines(lines)))
    if scaled:
        print("\n".join(["", *scaling.table(scaled)]))
    for fault in bench.faults:
        print(f"not measured: {fault}")
    write(bench, lines, scaled)
    return 0


if __name__ == "__main__":
    sys.exit(main())

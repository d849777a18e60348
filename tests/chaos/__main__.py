"""``make chaos``: every fault under load, each row in a process of its own with a time limit, and a table of all at the end.

python -m tests.chaos [--wiring fused] [NAME …] runs all rows or some; the exit status is 1 where one is not held.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from tests.chaos.report import Seen, table
from tests.chaos.rows import BOTH, ROWS, Row

# An environment variable that all processes of a row have.
_MARK = "POOLHOUSE_CHAOS_ROW"


def main() -> int:
    """Run the rows named, or all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(row.name for row in ROWS)])
    parser.add_argument("--wiring", choices=BOTH)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows = [row for row in ROWS if not options.names or row.name in options.names]
    if options.here is not None:
        options.here.write_text(json.dumps(rows[0].run(options.wiring).as_json()), encoding="utf-8")
        return 0
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results = []
    for row in rows:
        for wiring in row.wirings:
            if options.wiring in (None, wiring):
                begun_s = time.monotonic()
                seen = _in_a_process(row, wiring)
                results.append((row.name, wiring, time.monotonic() - begun_s, seen))
                print(table(results[-1:]).splitlines()[-1])
                for fault in seen.faults:
                    print(f"  not held: {fault}", flush=True)
    failed = [f"{name} ({wiring})" for name, wiring, _, seen in results if seen.faults]
    print(f"\n{table(results)}\n")
    print(f"{sum(seconds for _, _, seconds, _ in results) / 60:.0f} minutes;", "not held: " * bool(failed), end="")
    print(", ".join(failed) if failed else "all held")
    return 1 if failed else 0


def _in_a_process(row: Row, wiring: str) -> Seen:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seen.json"
        command = [sys.executable, "-m", "tests.chaos", "--wiring", wiring, "--here", str(file), row.name]
        mark = f"{_MARK}={uuid.uuid4().hex}"
        process = subprocess.Popen(command, env={**os.environ, **dict([mark.split("=")])})
        try:
            process.wait(row.limit_s)
        except subprocess.TimeoutExpired:
            return Seen(faults=[f"not over within {row.limit_s:g} s"])
        finally:
            _end_marked(mark.encode())
            process.wait()
        if not file.exists():
            return Seen(
                faults=[f"the experiment itself failed with status {process.returncode}; see its traceback above"]
            )
        return Seen.of_json(json.loads(file.read_text(encoding="utf-8")))


def _end_marked(mark: bytes) -> None:
    """End all that a row has started and left: its own process where it is not over, and the HAProxy of a Ray that was lost."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())

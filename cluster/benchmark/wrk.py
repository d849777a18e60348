"""wrk as the load generator: compiled, so that it takes next to nothing from a server that shares its machine."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cluster.benchmark.generator import Endpoint, Schedule
from cluster.benchmark.measurement import Measurement
from cluster.benchmark.words import WORDS
from cluster.benchmark.workloads import Workload
from cluster.errors import InvalidRequest

_RESULT = "result "
_MARK = "@"


def find_wrk() -> str | None:
    """Return wrk's path, or None where it is not installed."""
    return shutil.which("wrk")


def can_send(workload: Workload, schedule: Schedule) -> bool:
    """Whether wrk can do it: one text for each request, closed loop, for a time."""
    return workload.texts == 1 and not workload.has_query and schedule.rate is None and schedule.requests is None


def run_wrk(
    program: str,
    endpoint: Endpoint,
    workload: Workload,
    model: str,
    fields: Mapping[str, Any],
    schedule: Schedule,
    seed: int,
    sample: Callable[[], Any] = lambda: None,
) -> tuple[Measurement, tuple[Any, Any]]:
    """Warm up, then measure; returns the figures, and what ``sample`` returned before and after.

    Raises:
        InvalidRequest: wrk fails (nothing listens at the URL, say).
    """
    # The text's place is found in the printed body, so that JSON is quoted by a library and not by the script.
    body = orjson.dumps({"model": model, **dict(workload.fields), **fields, "input": _MARK}).decode()
    before, behind = body.rsplit(_MARK, 1)
    with tempfile.TemporaryDirectory() as folder, as_file(files("cluster.benchmark") / "wrk.lua") as script:
        words = Path(folder) / "words.txt"
        words.write_text("\n".join(WORDS), encoding="utf-8")
        headers = ["content-type: application/json"]
        if workload.accept:
            headers.append(f"accept: {workload.accept}")
        if endpoint.api_key:
            headers.append(f"authorization: Bearer {endpoint.api_key}")

        def command(seconds: float, seed: int) -> list[str]:
            options = [f"-c{schedule.connections}", "-t1", f"-d{max(1, round(seconds))}s"]
            options += [f"--timeout={max(1, round(schedule.timeout_s))}s", "--script", str(script)]
            for header in headers:
                options += ["-H", header]
            words_from_to = [str(words), str(seed), str(workload.min_words), str(workload.max_words)]
            return [program, *options, endpoint.url, "--", *words_from_to, before, behind]

        if schedule.warm_up_s > 0:
            _output(command(schedule.warm_up_s, seed + 1_000_000))
        first = sample()
        cpu_s = -_children_cpu_s()
        output = _output(command(schedule.duration_s, seed))
        cpu_s += _children_cpu_s()
        last = sample()
    return parse_output(output, cpu_s), (first, last)


def parse_output(output: str, client_cpu_s: float) -> Measurement:
    """Read the line that the script prints at the end.

    wrk puts requests that a slow answer would have held up into its histogram; they move the highest percentiles up.

    Raises:
        InvalidRequest: the line is not there.
    """
    line = next((line for line in output.splitlines() if line.startswith(_RESULT)), None)
    if line is None:
        raise InvalidRequest(f"wrk printed no result, but: {output.strip()[-400:]!r}; try --generator own")
    found = json.loads(line.removeprefix(_RESULT))
    errors: Counter[str] = Counter()
    for statuses in found["statuses"]:
        errors.update(statuses)
    failed = sum(errors.values())
    for fault in ("connect", "read", "write", "timeout"):
        if found[fault]:
            errors[fault] += found[fault]
    answered = found["requests"] - failed
    histogram = np.asarray(found["latency_us"], dtype=np.int64).reshape(-1, 2)
    return Measurement(
        generator="wrk",
        seconds=found["duration_us"] / 1e6,
        requests=answered,
        texts=answered,
        tokens=None if found["uncounted"] else found["tokens"],
        latencies_s=np.repeat(histogram[:, 0] / 1e6, histogram[:, 1]),
        errors=dict(errors),
        client_cpu_s=client_cpu_s,
    )


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InvalidRequest(f"wrk failed: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

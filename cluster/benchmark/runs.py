"""Servers side by side: one window against each in turn, for several rounds."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cluster.benchmark.generator import Endpoint, Generator, Schedule
from cluster.benchmark.measurement import Measurement, measure, merge
from cluster.benchmark.processes import cpu_seconds, difference
from cluster.benchmark.workloads import Workload, bodies_of
from cluster.benchmark.wrk import can_send, find_wrk, run_wrk
from cluster.errors import InvalidRequest

_ASK_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """One server under test.

    Attributes:
        name: in tables.
        url: its base; the workload's path is appended unless it has a path of its own.
        model: the name that requests carry.
        process: id of its first process on this machine, to read its CPU time.
        fields: of every request's body to this server, beside the workload's.
    """

    name: str
    url: str
    model: str
    api_key: str | None = None
    process: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def endpoint(self, workload: Workload) -> Endpoint:
        """Where the workload's requests go."""
        bare = urlsplit(self.url).path in ("", "/")
        url = self.url.rstrip("/") + workload.path if bare else self.url
        return Endpoint(url, workload.accept, self.api_key)


def model_of(url: str, api_key: str | None) -> str:
    """Return the first model that ``GET /v1/models`` lists.

    Raises:
        InvalidRequest: the server does not list its models.
    """
    parts = urlsplit(url)
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    listing = f"{parts.scheme}://{parts.netloc}/v1/models"
    try:
        if parts.scheme not in ("http", "https"):
            raise ValueError("it is not a URL of HTTP")
        with urllib.request.urlopen(urllib.request.Request(listing, headers=headers), timeout=_ASK_WITHIN_S) as answer:
            return str(json.load(answer)["data"][0]["id"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise InvalidRequest(f"{listing} does not say which models there are ({reason}); give --model") from error


def run_window(
    server: Server, workload: Workload, schedule: Schedule, *, seed: int = 0, generator: str = "auto"
) -> Measurement:
    """Measure one window.

    Args:
        generator: ``auto`` (wrk where it is installed and can send the workload), ``wrk`` or ``own``.

    Raises:
        InvalidRequest: nothing listens there, or wrk is asked for and cannot do it.
    """
    program = find_wrk()
    if generator == "wrk" and program is None:
        raise InvalidRequest("wrk is not installed; install it (Debian: apt-get install wrk), or use --generator own")
    if generator == "wrk" and not can_send(workload, schedule):
        raise InvalidRequest(
            "wrk sends one text a request, in a closed loop, for a time; use --generator own for this workload"
        )
    endpoint = server.endpoint(workload)
    sample = _sampler(server)
    if program is not None and generator != "own" and can_send(workload, schedule):
        measurement, samples = run_wrk(program, endpoint, workload, server.model, server.fields, schedule, seed, sample)
        measurement.server_cpu_s = _taken(samples)
        return measurement
    bodies = bodies_of(workload, server.model, seed, server.fields)
    run = Generator(endpoint, bodies, workload.texts, schedule, sample=sample, seed=seed)
    recording = asyncio.run(run.run())
    return measure(recording, _taken(recording.samples))


def run_rounds(
    servers: Sequence[Server],
    workload: Workload,
    schedule: Schedule,
    *,
    rounds: int,
    seed: int = 0,
    generator: str = "auto",
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, list[Measurement]]:
    """Measure every server once in each round, so that whatever disturbs the machine hits all alike.

    Returns:
        Server's name → its windows, in the order of the rounds.
    """
    windows: dict[str, list[Measurement]] = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in servers:
            progress(f"round {number + 1} of {rounds}: {server.name}")
            # Every round has its own texts; within a round all servers are sent the same.
            windows[server.name].append(
                run_window(server, workload, schedule, seed=seed + 7919 * number, generator=generator)
            )
    return windows


def totals(windows: Mapping[str, Sequence[Measurement]]) -> dict[str, Measurement]:
    """Return every server's windows as one."""
    return {name: merge(parts) for name, parts in windows.items()}


def _sampler(server: Server) -> Callable[[], dict[str, float] | None]:
    process = server.process
    return (lambda: None) if process is None else (lambda: cpu_seconds(process))


def _taken(samples: tuple[Any, Any]) -> dict[str, float] | None:
    before, after = samples
    return None if before is None or after is None else difference(before, after)

"""What is measured against every server: one cell for each kind of load."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from cluster.benchmark.generator import Generator, Schedule
from cluster.benchmark.measurement import Measurement, measure
from cluster.benchmark.runs import Server, run_window
from cluster.benchmark.workloads import WORKLOADS, Workload, bodies_of

INTERACTIVE_RATE = 10.0
BULK_CONNECTIONS = 4

# Words that the random model's small vocabulary lacks become several tokens each: a text has about 50.
QWEN3 = Workload("qwen3", "4 texts of 4 to 16 words (about 50 tokens each)", 4, 4, 16, connections=4)


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of load.

    Attributes:
        seconds: of the full run's window, as a multiple of the run's own.
        under_bulk: None: the load itself; False: an interactive client alone; True: the same beside bulk load.
    """

    workload: Workload
    connections: int
    seconds: float = 1.0
    under_bulk: bool | None = None


CELLS = {
    "batch": Cell(WORKLOADS["batch"], 4, 1.5),
    "short16": Cell(WORKLOADS["short"], 16),
    "short64": Cell(WORKLOADS["short"], 64),
    "mixed": Cell(WORKLOADS["mixed"], 16),
    "one": Cell(WORKLOADS["short"], 1, 0.5),
    "none": Cell(WORKLOADS["none"], 4, 1.5),
    "idle": Cell(WORKLOADS["short"], 16, 1.5, under_bulk=False),
    "bulk": Cell(WORKLOADS["short"], 16, 1.5, under_bulk=True),
    "rerank": Cell(WORKLOADS["rerank"], 1, 1.5),
    "qwen3": Cell(QWEN3, 4, 4.0),
}


def run_cell(cell: Cell, server: Server, seconds: float, seed: int) -> Measurement:
    """Measure one window of about ``seconds`` times the cell's own factor."""
    duration_s = seconds * cell.seconds
    warm_up_s = 1.0 if seconds < 6 else 2.0
    if cell.under_bulk is not None:
        return asyncio.run(
            _interactive(cell, server, Schedule(cell.connections, INTERACTIVE_RATE, warm_up_s, duration_s), seed)
        )
    # One connection measures latency; wrk adds made-up entries to its histogram, so the own generator does that.
    generator = "own" if cell.connections == 1 else "auto"
    schedule = Schedule(cell.connections, warm_up_s=warm_up_s, duration_s=duration_s)
    return run_window(server, cell.workload, schedule, seed=seed, generator=generator)


async def _interactive(cell: Cell, server: Server, schedule: Schedule, seed: int) -> Measurement:
    """Measure an interactive client, beside saturating bulk load where the cell asks for it."""
    endpoint = server.endpoint(cell.workload)
    bodies = bodies_of(cell.workload, server.model, seed, {"lane": "interactive"})
    client = Generator(endpoint, bodies, 1, schedule, seed=seed)
    if not cell.under_bulk:
        return measure(await client.run())
    batch = WORKLOADS["batch"]
    bulk_bodies = bodies_of(batch, server.model, seed + 1, {"lane": "bulk"})
    # The bulk load begins earlier and ends later, so that it fills the whole of the client's window.
    bulk_schedule = Schedule(BULK_CONNECTIONS, warm_up_s=0.0, duration_s=schedule.warm_up_s + schedule.duration_s + 1.0)
    bulk = Generator(server.endpoint(batch), bulk_bodies, batch.texts, bulk_schedule)
    recording, _ = await asyncio.gather(client.run(), bulk.run())
    return measure(recording)

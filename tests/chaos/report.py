"""What a row of ``make chaos`` has shown, and the table of all rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.load import Outcome

# A replacement takes seconds to start, so that the next fault is later.
_APART_S = 2.0
_BRIEF_S = 2.0


@dataclass(slots=True)
class Line:
    """What one group of clients saw, as the table prints it."""

    part: str
    requests: int
    statuses: dict[str, int]
    wrong: int
    p50_s: float
    slowest_s: float


@dataclass(slots=True)
class Seen:
    """What clients saw of one fault in one wiring.

    Attributes:
        remarks: figures beside those of the lines.
        faults: what was not held; none is a row that is held.
    """

    lines: list[Line] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome, part: str = "") -> None:
        """Add a line; answers that are wrong are never held."""
        statuses = {str(status or "broken"): count for status, count in sorted(outcome.statuses.items())}
        answered = outcome.percentile_s(200, 50), outcome.percentile_s(200, 100)
        self.lines.append(Line(part, outcome.statuses.total(), statuses, outcome.wrong, *answered))
        if outcome.retried:
            self.remarks.append(f"{outcome.retried} sent once more")
        self.demand(not outcome.wrong, f"{outcome.wrong} wrong answers")
        self.demand(bool(outcome.statuses[200]), "no request was answered")

    def demand(self, held: bool, fault: str) -> None:
        """Note what was not held."""
        if not held:
            self.faults.append(fault)

    def demand_all_answered(self, outcome: Outcome, within_s: float | None = None) -> None:
        """Every request must have been answered with 200, the slowest within so long."""
        self.demand(not outcome.errors, f"{outcome.errors} were not answered with 200: {_texts(outcome)}")
        if within_s is not None:
            slowest_s = outcome.percentile_s(200, 100)
            self.demand(slowest_s <= within_s, f"the slowest after {slowest_s:.1f} s, not within {within_s:g} s")

    def demand_brief_failures(self, outcome: Outcome, faults: int = 1) -> None:
        """Each of so many faults may have let requests fail for no more than two seconds."""
        bursts = failures_s(outcome)
        self.remarks += [f"{len(burst)} failed within {burst[-1] - burst[0]:.1f} s" for burst in bursts]
        brief = len(bursts) <= faults and all(burst[-1] - burst[0] <= _BRIEF_S for burst in bursts)
        self.demand(brief, f"failures in {len(bursts)} bursts, {faults} of {_BRIEF_S:g} s allowed: {_texts(outcome)}")

    def as_json(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    @staticmethod
    def of_json(value: dict[str, Any]) -> Seen:
        """The reverse of ``as_json``."""
        return Seen([Line(**line) for line in value["lines"]], value["remarks"], value["faults"])


def failures_s(outcome: Outcome) -> list[list[float]]:
    """When requests failed, seconds after the load began, in bursts: those of one fault lie close together."""
    bursts: list[list[float]] = []
    for at_s in sorted(at_s for status, times in outcome.finished_s.items() if status != 200 for at_s in times):
        if not bursts or at_s - bursts[-1][-1] > _APART_S:
            bursts.append([])
        bursts[-1].append(at_s)
    return bursts


def table(rows: Iterable[tuple[str, str, float, Seen]]) -> str:
    """Print (fault, wiring, seconds, what was seen) as Markdown."""
    printed = [
        "| Fault | Wiring | Requests | Answers by status | Wrong | p50, ms | Slowest, s | Beside | Held | Seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, wiring, seconds, seen in rows:
        held = "yes" if not seen.faults else "NO"
        for number, line in enumerate(seen.lines or [Line("", 0, {}, 0, 0.0, 0.0)]):
            statuses = ", ".join(f"{status}: {count}" for status, count in line.statuses.items())
            figures = f"{line.requests} | {statuses} | {line.wrong} | {line.p50_s * 1e3:.0f} | {line.slowest_s:.2f}"
            part = f"{name}, {line.part}" if line.part else name
            last = f"{'; '.join(seen.remarks)} | {held} | {seconds:.0f}" if number == 0 else " | | "
            printed.append(f"| {part} | {wiring} | {figures} | {last} |")
    return "\n".join(printed)


def _texts(outcome: Outcome) -> str:
    return "; ".join(body[:160] or "(the connection broke)" for body in outcome.bodies)

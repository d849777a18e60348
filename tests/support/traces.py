"""Exporters of traces, as a configuration names one: into this process's memory, and into files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

FOLDER = "POOLHOUSE_TEST_TRACES"
"""Environment variable: where ``files`` writes."""

_exporters: list[InMemorySpanExporter] = []


def in_memory() -> list[SpanProcessor]:
    """What ``tracing.exporter`` is to return; an exporter cannot be used again once tracing has stopped."""
    _exporters.append(InMemorySpanExporter())
    return [SimpleSpanProcessor(_exporters[-1])]


def finished_spans() -> tuple[ReadableSpan, ...]:
    """The spans that the latest exporter got."""
    return _exporters[-1].get_finished_spans() if _exporters else ()


def wrong() -> str:
    """No list of processors."""
    return "nothing"


class _Files(SpanExporter):
    """Appends each span to a file of its process, as one line of JSON."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"{os.getpid()}.jsonl"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._file.open("a", encoding="utf-8") as lines:
            lines.writelines(span.to_json(indent=None) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


def files() -> list[SpanProcessor]:
    """An exporter for several processes; the folder is in the environment."""
    return [SimpleSpanProcessor(_Files(Path(os.environ[FOLDER])))]


def held_files() -> list[SpanProcessor]:
    """As ``files``, but spans are kept together for an hour: only what ends the tracing writes them."""
    return [BatchSpanProcessor(_Files(Path(os.environ[FOLDER])), schedule_delay_millis=3_600_000)]


def spans_in(folder: Path, trace_id: str) -> list[dict[str, Any]]:
    """The spans of one trace, each with the id of its process."""
    found = []
    for file in folder.glob("*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            span = json.loads(line)
            if span["context"]["trace_id"].removeprefix("0x") == trace_id:
                found.append({**span, "process": file.stem})
    return found

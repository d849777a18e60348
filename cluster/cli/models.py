"""``poolhouse models list | pull | inspect``."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from cluster.config import ModelConfig
from cluster.models import ModelReport, inspect_gguf, resolve
from cluster.models.cache import cache_directory
from cluster.models.fingerprint import gguf_sha256
from cluster.models.package import PACKAGED_MODELS
from cluster.types import PoolingType

DEFAULT_SOURCE = "package:all-minilm-l6-v2"
_QUANTISATIONS = ("f16", "f32", "q8_0")
_EXAMPLES = """examples:
  poolhouse models list
  poolhouse models pull
  poolhouse models pull hf://Qwen/Qwen3-Embedding-0.6B-GGUF/Qwen3-Embedding-0.6B-Q8_0.gguf@main
  poolhouse models inspect package:all-minilm-l6-v2
  poolhouse models inspect reranker.gguf --json
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], help_text: str) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "models", help=help_text, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list packaged models and what lies in the cache directory")
    listing.set_defaults(run=_list)
    pull = actions.add_parser("pull", help="fetch a model and print its path")
    pull.add_argument("source", nargs="?", default=DEFAULT_SOURCE, help=f"default: {DEFAULT_SOURCE}")
    pull.add_argument("--quantisation", choices=_QUANTISATIONS, default="f16", help="of a packaged model")
    pull.add_argument("--sha256", help="refuse a file with another digest")
    pull.set_defaults(run=_pull)
    inspect = actions.add_parser("inspect", help="show what a GGUF is and which pooling types it can answer")
    inspect.add_argument("source", nargs="?", default=DEFAULT_SOURCE, help="path, hf://… or package:…")
    inspect.add_argument("--quantisation", choices=_QUANTISATIONS, default="f16", help="of a packaged model")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)


def _list(_: argparse.Namespace) -> int:
    print("packaged:")
    for name, model in PACKAGED_MODELS.items():
        print(f"  package:{name}  (from {model.requirement})")
    directory = cache_directory()
    print(f"in {directory}:")
    files = sorted(directory.glob("*.gguf"))
    for file in files:
        print(f"  {file.name}  {file.stat().st_size / 1e6:.1f} MB")
    if not files:
        print("  nothing yet; run: poolhouse models pull")
    return 0


def _pull(options: argparse.Namespace) -> int:
    print(resolve(_model(options, options.sha256)))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    path = resolve(_model(options, None))
    report = inspect_gguf(path)
    described = describe_report(report)
    if options.json:
        print(json.dumps(described, indent=2, ensure_ascii=False))
    else:
        _print_table(described)
    return 0


def _model(options: argparse.Namespace, sha256: str | None) -> ModelConfig:
    return ModelConfig(source=options.source, quantisation=options.quantisation, sha256=sha256)


def describe_report(report: ModelReport) -> dict[str, Any]:
    """Return everything that ``inspect`` shows, ready for JSON."""
    facts = report.facts()
    described = dataclasses.asdict(report)
    described["path"] = str(report.path)
    described["sha256"] = gguf_sha256(Path(report.path))
    described["pooling_types"] = list(facts.pooling_types)
    described["refused_pooling_types"] = {str(pooling): why for pooling, why in facts.refused.items()}
    return described


def _print_table(described: dict[str, Any]) -> None:
    refused = described.pop("refused_pooling_types")
    answered = described.pop("pooling_types")
    templates = described.pop("templates")
    for key, value in described.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{key.replace('_', ' '):18} {'-' if shown in (None, '') else shown}")
    print(f"{'templates':18} {', '.join(templates) or '-'}")
    print("pooling types")
    for pooling in PoolingType:
        print(f"  {pooling:10} {'yes' if pooling in answered else 'no: ' + refused[pooling]}")

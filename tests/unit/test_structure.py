"""The rules of the rooms: imports point down one list, native and Ray imports stay where they belong, modules stay short."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ORDER = (
    ("cli", "client", "evaluation", "benchmark", "batch"),
    ("api",),
    ("pipeline", "isolation", "fused", "reranking"),
    ("assembly", "stages"),
    ("answers", "pooler", "routing", "tokenization", "batching", "admission", "poisons", "attempts"),
    ("pairs",),
    ("engine",),
    ("pooling", "rerank"),
    ("models",),
    ("calls",),
    ("live",),
    ("offload",),
    ("config",),
    ("types",),
    ("item_errors",),
    ("telemetry",),
    ("errors",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
MODULES = sorted((ROOT / "cluster").rglob("*.py"))
ALL = MODULES + sorted((ROOT / "deployments").rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_point_down() -> None:
    wrong = []
    for path in MODULES:
        room = path.relative_to(ROOT / "cluster").parts[0].removesuffix(".py")
        for name in _imports(path):
            other = _room(name) if name.startswith("cluster.") else ""
            if room in RANK and other in RANK and other != room and RANK[other] < RANK[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if name.split(".")[0] == "deployments":
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_only_the_engine_imports_llama_cpp() -> None:
    users = [path for path in ALL if any(name.split(".")[0] == "llama_cpp" for name in _imports(path))]
    assert users
    assert all("llama" in path.parent.name for path in users)


def test_only_deployments_and_batch_import_ray() -> None:
    users = [path for path in MODULES if any(name.split(".")[0] == "ray" for name in _imports(path))]
    assert all(path.parent.name == "batch" for path in users)


def test_modules_stay_within_400_lines() -> None:
    assert [str(path) for path in ALL if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []

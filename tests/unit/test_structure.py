"""The rules of the rooms: imports point down one list, native and Ray imports stay where they belong, modules stay short."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ORDER = (
    ("cli", "client", "evaluation", "benchmark", "batch"),
    ("api",),
    ("pipeline", "isolation", "fused", "reranking"),
    ("isolated",),
    ("assembly", "stages"),
    ("message_sizes", "demand"),
    (
        "answers",
        "pooler",
        "routing",
        "tokenization",
        "batching",
        "admission",
        "quarantine",
        "attempts",
        "timings",
        "golden",
        "showing",
    ),
    ("texts",),
    ("input_sizes",),
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
    ("failures",),
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


def _room_of(path: Path) -> str:
    return path.relative_to(ROOT / "cluster").parts[0].removesuffix(".py")


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_its_place_in_the_order_and_every_place_a_room() -> None:
    rooms = {_room_of(path) for path in MODULES} - {"__init__"}
    assert rooms == set(RANK)


def test_imports_point_down() -> None:
    checked, wrong = 0, []
    for path in MODULES:
        room = _room_of(path)
        for name in _imports(path):
            other = _room(name) if name.startswith("cluster.") else ""
            if other not in ("", room):
                checked += 1
                if RANK[other] < RANK[room]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if name.split(".")[0] == "deployments":
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []
    assert checked > len(MODULES)


def test_only_the_engine_imports_llama_cpp() -> None:
    users = [path for path in ALL if any(name.split(".")[0] == "llama_cpp" for name in _imports(path))]
    assert users
    assert [path for path in users if path.parent.name != "llama"] == []


def test_only_deployments_and_batch_import_ray() -> None:
    imported = {path: {name.split(".")[0] for name in _imports(path)} for path in ALL}
    assert any("ray" in names for path, names in imported.items() if path not in MODULES)
    assert [path for path in MODULES if "ray" in imported[path] and path.parent.name != "batch"] == []


def test_modules_stay_within_400_lines() -> None:
    assert [str(path) for path in ALL if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []

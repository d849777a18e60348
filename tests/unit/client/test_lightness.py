from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("ray", "llama_cpp", "pydantic", "fastapi", "starlette", "gguf", "huggingface_hub", "scipy")


@pytest.mark.parametrize("module", ["cluster.client", "cluster.errors", "cluster.types"])
def test_importing_it_brings_nothing_of_the_server(module: str) -> None:
    program = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_of_the_project_it_uses_errors_and_types_only() -> None:
    program = "import sys, cluster.client; print(*(name for name in sys.modules if name.startswith('cluster.')))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in found.stdout.split()}
    assert rooms == {"client", "errors", "types"}

"""Where the chart is, how it is rendered, and what must be installed for that."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "poolhouse"
PROD = ROOT / "configs" / "prod.yaml"
ENVIRONMENT = ROOT / "configs" / "serve.env"
CASES = sorted((CHART / "ci").glob("*.yaml"))

Manifest = dict[str, Any]


def tool(name: str, module: str) -> str:
    """Return the path of a program; the test is skipped where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on PATH; install it: go install {module}")
    return found


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = tool("helm", "helm.sh/helm/v3/cmd/helm@v3.19.5")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def files(config: Path = PROD) -> tuple[str, ...]:
    return ("--set-file", f"serveConfig={config}", "--set-file", f"serveEnv={ENVIRONMENT}")


def render(*arguments: str | Path, config: Path = PROD) -> list[Manifest]:
    done = helm("template", "search", CHART, *files(config), *arguments)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def refusal(*arguments: str | Path) -> str:
    done = helm("template", "search", CHART, *arguments)
    assert done.returncode != 0, "the chart rendered what it should refuse"
    return done.stderr


def only(manifests: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    found = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, [each["metadata"]["name"] for each in manifests if each["kind"] == kind]
    return found[0]


def pod_templates(service: Manifest) -> dict[str, Manifest]:
    """The pod templates of a RayService by group name; the head is ``head``."""
    cluster = service["spec"]["rayClusterConfig"]
    groups = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"], **groups}

"""Every manifest against its schema, unknown fields refused."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.unit.helm.chart import CASES, CHART, Manifest, only, render, tool
from tests.unit.helm.schemas import ray_service_schema, write_schemas


def validate(manifests: list[Manifest], schemas: Path) -> subprocess.CompletedProcess[str]:
    program = tool("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0")
    location = f"{schemas}/{{{{ .ResourceKind }}}}-{{{{ .Group }}}}-{{{{ .ResourceAPIVersion }}}}.json"
    return subprocess.run(
        [program, "-strict", "-schema-location", location],
        input=yaml.safe_dump_all(manifests),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tool("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0")
    directory = tmp_path_factory.mktemp("schemas")
    write_schemas(directory)
    return directory


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_manifest_is_valid(case: Path, schemas: Path) -> None:
    done = validate(render("--values", case), schemas)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unknown_field_of_any_manifest_is_refused(schemas: Path) -> None:
    manifests = render("--values", CHART / "ci" / "full.yaml")
    manifests += render("--values", CHART / "ci" / "gateway.yaml")
    assert "RayService" in {manifest["kind"] for manifest in manifests}
    for manifest in manifests:
        part = "spec" if "spec" in manifest else "metadata"
        broken = copy.deepcopy(manifest)
        broken[part]["unknown"] = "field"
        assert validate([broken], schemas).returncode != 0, manifest["kind"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_ray_service_satisfies_the_operator_s_definition(case: Path) -> None:
    jsonschema.Draft202012Validator(ray_service_schema()).validate(only(render("--values", case), "RayService"))


def test_an_unknown_field_deep_in_the_ray_service_is_refused() -> None:
    service = only(render("--values", CHART / "ci" / "full.yaml"), "RayService")
    container = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]
    container["enviroment"] = []
    with pytest.raises(jsonschema.ValidationError, match="enviroment"):
        jsonschema.Draft202012Validator(ray_service_schema()).validate(service)

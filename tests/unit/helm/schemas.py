"""JSON schemas of the manifests, with unknown fields refused.

Kubernetes' own come from the OpenAPI file of release 1.27 in the Go module k8s.io/kube-openapi, which is in the module cache
wherever Helm was built from source. RayService comes from KubeRay's definition. HTTPRoute, Gateway and PodMonitor are written
out below, with the fields that the chart uses and no others.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.helm.chart import ROOT

Schema = dict[str, Any]

# Kind → package in Kubernetes' definitions, API group as kubeconform names it (the core group by its version).
KINDS = {
    "Secret": ("core", "v1"),
    "ConfigMap": ("core", "v1"),
    "PersistentVolumeClaim": ("core", "v1"),
    "DaemonSet": ("apps", "apps"),
    "Ingress": ("networking", "networking.k8s.io"),
    "NetworkPolicy": ("networking", "networking.k8s.io"),
    "PodDisruptionBudget": ("policy", "policy"),
}

_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "labels": _STRINGS, "annotations": _STRINGS},
}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _resource(version: str, kind: str, spec: Schema) -> Schema:
    return _object(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": version},
        kind={"const": kind},
        metadata=_METADATA,
        spec=spec,
    )


_TEXT: Schema = {"type": "string", "minLength": 1}

WRITTEN_HERE: dict[str, Schema] = {
    "httproute-gateway.networking.k8s.io-v1": _resource(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        _object(
            ["parentRefs", "rules"],
            parentRefs=_list(_object(["name"], name=_TEXT, namespace=_TEXT, sectionName=_TEXT)),
            hostnames=_list(_TEXT),
            rules=_list(
                _object(
                    ["backendRefs"],
                    matches=_list(_object(["path"], path=_object(["type", "value"], type=_TEXT, value=_TEXT))),
                    timeouts=_object(["request"], request={"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms))+$"}),
                    backendRefs=_list(_object(["name", "port"], name=_TEXT, port=_PORT)),
                )
            ),
        ),
    ),
    "gateway-gateway.networking.k8s.io-v1": _resource(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        _object(
            ["gatewayClassName", "listeners"],
            gatewayClassName=_TEXT,
            listeners=_list(
                _object(
                    ["name", "port", "protocol"],
                    name=_TEXT,
                    port=_PORT,
                    protocol={"enum": ["HTTP", "HTTPS"]},
                    tls=_object(
                        ["mode", "certificateRefs"],
                        mode={"enum": ["Terminate"]},
                        certificateRefs=_list(_object(["name"], name=_TEXT)),
                    ),
                )
            ),
        ),
    ),
    "podmonitor-monitoring.coreos.com-v1": _resource(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        _object(
            ["selector", "podMetricsEndpoints"],
            selector=_object(["matchLabels"], matchLabels=_STRINGS),
            podMetricsEndpoints=_list(
                _object(
                    ["port"],
                    port=_TEXT,
                    interval=_TEXT,
                    relabelings=_list(_object(["targetLabel"], sourceLabels=_list(_TEXT), targetLabel=_TEXT)),
                )
            ),
        ),
    ),
}


def ray_service_schema() -> Schema:
    """KubeRay's RayService v1; the test is skipped where the definition is missing."""
    path = ROOT.parent / "shared" / "schemas" / "ray.io_rayservices.yaml"
    if not path.is_file():
        pytest.skip("the definition ../shared/schemas/ray.io_rayservices.yaml is not there")
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    version = next(each for each in definition["spec"]["versions"] if each["name"] == "v1")
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return refuse_unknown(schema)


def refuse_unknown(schema: Schema) -> Schema:
    """Return the schema with ``additionalProperties: false`` wherever properties are listed."""
    strict = copy.deepcopy(schema)
    pending: list[Any] = [strict]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            open_on_purpose = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
            if isinstance(node.get("properties"), dict) and not open_on_purpose:
                node["additionalProperties"] = False
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return strict


def kubernetes_definitions() -> Schema:
    """Kubernetes' definitions by name; the test is skipped where their file is missing."""
    configured = os.environ.get("KUBERNETES_OPENAPI")
    found = [Path(configured)] if configured else []
    go = shutil.which("go")
    if go is not None and not found:
        done = subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True, timeout=30, check=True)
        cache = Path(done.stdout.strip())
        found = sorted(cache.glob("k8s.io/kube-openapi@*/pkg/schemaconv/testdata/swagger.json"))
    if not found:
        pytest.skip(
            "Kubernetes' OpenAPI file is in no Go module cache; run: go install helm.sh/helm/v3/cmd/helm@v3.19.5, "
            "or set KUBERNETES_OPENAPI to a cluster's /openapi/v2 saved as JSON"
        )
    definitions: Schema = json.loads(found[-1].read_text(encoding="utf-8"))["definitions"]
    # OpenAPI 2 cannot say "either", so these two are strings there; the server takes numbers as well.
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["integer", "string"]}
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["number", "string"]}
    return definitions


def write_schemas(directory: Path) -> None:
    """Write one file for each kind that the chart renders, named as ``kubeconform`` is told to look for them."""
    definitions = refuse_unknown(kubernetes_definitions())
    for kind, (package, group) in KINDS.items():
        schema = {"$ref": f"#/definitions/io.k8s.api.{package}.v1.{kind}", "definitions": definitions}
        (directory / f"{kind.lower()}-{group}-v1.json").write_text(json.dumps(schema), encoding="utf-8")
    for name, schema in WRITTEN_HERE.items():
        (directory / f"{name}.json").write_text(json.dumps(schema), encoding="utf-8")
    (directory / "rayservice-ray.io-v1.json").write_text(json.dumps(ray_service_schema()), encoding="utf-8")

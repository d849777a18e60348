"""The schema of the values, without Helm."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from tests.unit.helm.chart import CASES, CHART

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def follow(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def undescribed(value: object, schema: dict[str, Any], where: str) -> list[str]:
    schema = follow(schema)
    if isinstance(value, list) and "items" in schema:
        return [fault for item in value for fault in undescribed(item, schema["items"], f"{where}[]")]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    missing = [f"{where}.{key}" for key in value if key not in schema["properties"]]
    known = [key for key in value if key in schema["properties"]]
    return missing + [
        fault for key in known for fault in undescribed(value[key], schema["properties"][key], f"{where}.{key}")
    ]


def test_the_schema_is_a_valid_json_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_the_default_values_satisfy_the_schema() -> None:
    jsonschema.validate(VALUES, SCHEMA)


def test_every_default_value_is_described() -> None:
    assert undescribed(VALUES, SCHEMA, "values") == []


def test_every_property_has_a_default() -> None:
    # "global" is Helm's, not the chart's.
    assert set(SCHEMA["properties"]) - {"global"} == set(VALUES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_each_value_file_satisfies_the_schema(case: Any) -> None:
    jsonschema.validate(yaml.safe_load(case.read_text(encoding="utf-8")), SCHEMA)


@pytest.mark.parametrize(
    "values",
    [
        {"unknown": 1},
        {"upgrade": {"type": "Rolling"}},
        {"modelCache": {"size": "many"}},
        {"auth": {"mode": "none"}},
        {"workerGroups": []},
        {"workerGroups": [{"name": "Upper", "minReplicas": 1, "maxReplicas": 1, "resources": {}}]},
        {"apiKeys": {"records": [{"id": "a", "sha256": "the key itself"}]}},
        {"pods": {"labels": {"app.kubernetes.io/name": "mine"}}},
        {"gcsFaultTolerance": {"redisAddress": "redis"}},
    ],
    ids=lambda values: json.dumps(values)[:40],
)
def test_faulty_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)

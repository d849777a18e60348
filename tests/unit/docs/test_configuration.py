"""docs/configuration.md names every key with its default, and no others."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from cluster.config import PoolhouseConfig

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"
_ROW = re.compile(r"^\| `(?P<key>\w+)` \| (?P<default>.+?) \| (?P<what>.+) \|$", re.MULTILINE)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]


def _sections(model: type[BaseModel], heading: str = "args") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of the configuration by its heading on the page: ``limits``, ``models.NAME``."""
    yield heading, model
    for key, field in model.model_fields.items():
        named = "dict" in str(typing.get_origin(field.annotation))
        where = key if heading == "args" else f"{heading}.{key}"
        for inner in _models_in(field.annotation):
            yield from _sections(inner, f"{where}.NAME" if named else where)


SECTIONS = dict(_sections(PoolhouseConfig))


def _rows(heading: str) -> dict[str, str]:
    page = PAGE.read_text(encoding="utf-8")
    _, found, rest = page.partition(f"\n## `{heading}`\n")
    assert found, f"docs/configuration.md has no section '## `{heading}`'; add it with a table of its keys"
    return {row["key"]: row["default"] for row in _ROW.finditer(rest.partition("\n## ")[0])}


def _default(model: type[BaseModel], key: str) -> str:
    field = model.model_fields[key]
    if _models_in(field.annotation) and not field.is_required():
        return "see below"
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "-"
    plain = to_jsonable_python(default)
    return f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_has_a_row_with_its_default(heading: str) -> None:
    model = SECTIONS[heading]
    expected = {key: _default(model, key) for key in model.model_fields}
    rows = _rows(heading)
    for key, default in expected.items():
        assert key in rows, (
            f"{heading}: the key {key!r} is not on docs/configuration.md; "
            f"add the row '| `{key}` | {default} | what it changes |' to the section '## `{heading}`'"
        )
        assert rows[key] == default, (
            f"{heading}.{key}: docs/configuration.md gives the default {rows[key]} and cluster/config.py has {default}; "
            "correct the page"
        )
    gone = rows.keys() - expected.keys()
    assert not gone, f"{heading}: docs/configuration.md lists {', '.join(gone)}, which cluster/config.py does not have"


def test_every_section_of_the_page_is_one_of_the_configuration() -> None:
    headings = re.findall(r"^## `(.+)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings == list(SECTIONS)

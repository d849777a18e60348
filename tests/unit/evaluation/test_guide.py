"""The guide and its translation say the same, and their pictures are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
PAGES = (DOCS / "pooling.md", DOCS / "pooling.zh.md")
LARGEST_BYTES = 300_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert len(links) == 6
    assert [link for link in links if not (DOCS / link).is_file()] == []


def test_both_pages_have_the_same_figures_and_commands() -> None:
    first, second = (page.read_text(encoding="utf-8") for page in PAGES)
    for pattern in (r"\d+[.,]\d+", r"\]\((images/[^)]+)\)", r"^    (poolhouse [^#\n]+?)\s*(?:#.*)?$", r"^## "):
        found = re.findall(pattern, first, re.MULTILINE)
        assert found
        assert found == re.findall(pattern, second, re.MULTILINE)


def test_pictures_are_small() -> None:
    pictures = list((DOCS / "images").glob("*.png"))
    assert len(pictures) == 5
    assert [picture.name for picture in pictures if picture.stat().st_size > LARGEST_BYTES] == []

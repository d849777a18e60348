from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import pytest

from cluster.errors import InvalidRequest
from cluster.evaluation.comparison import Comparison, ValidationSet, compare
from cluster.evaluation.data import ScoredPairs
from cluster.evaluation.local import LocalModel
from cluster.evaluation.plots import Picture, draw_all
from cluster.evaluation.report import render_html, write_report
from cluster.evaluation.tasks import Settings
from cluster.evaluation.wording import print_comparison

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that elements close in order; collects what the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def pictures(comparison: Comparison) -> list[Picture]:
    return draw_all(comparison)


def test_every_picture_is_a_png_with_something_on_it(pictures: list[Picture]) -> None:
    assert [picture.name for picture in pictures] == ["intervals", "scatter", "heatmaps", "tsne"]
    for picture in pictures:
        pixels = matplotlib.image.imread(io.BytesIO(picture.png), format="png")
        assert min(pixels.shape[:2]) > 200
        assert pixels.std() > 0.02


def test_pictures_are_the_same_each_time(comparison: Comparison, pictures: list[Picture]) -> None:
    assert [picture.png for picture in draw_all(comparison)] == [picture.png for picture in pictures]


@pytest.mark.parametrize("part", ["pairs", "labels", "retrieval"])
def test_every_kind_of_data_can_be_drawn_alone(part: str, pairs: object, labels: object, retrieval: object) -> None:
    data = ValidationSet(**{part: {"pairs": pairs, "labels": labels, "retrieval": retrieval}[part]})  # type: ignore[arg-type]
    found = compare(LocalModel.fake(), data, Settings(resamples=100))
    names = [picture.name for picture in draw_all(found)]
    assert names == ["intervals", *(["scatter"] if part == "pairs" else []), "heatmaps", "tsne"]


def test_texts_that_look_like_formulas_or_have_no_font_are_drawn(pairs: ScoredPairs) -> None:
    odd = replace(pairs, first=["costs $5_{", "北京 是 首都", "\U0001f980 \u1000", *pairs.first[3:]])
    found = compare(LocalModel.fake(), ValidationSet(odd), Settings(resamples=100))
    drawn = draw_all(found)
    assert [picture.name for picture in drawn if picture.png] == ["intervals", "scatter", "heatmaps", "tsne"]


def test_the_page_is_whole_and_fetches_nothing(comparison: Comparison, pictures: list[Picture]) -> None:
    page = Page(render_html(comparison, pictures))
    assert page.open == []
    assert len(page.sources) == len(pictures)
    for source, picture in zip(page.sources, pictures, strict=True):
        head, _, encoded = source.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(encoded, validate=True) == picture.png
    assert not page.tags & {"script", "link", "iframe", "object"}


def test_names_from_the_data_cannot_become_markup(comparison: Comparison) -> None:
    hostile = replace(comparison, facts=replace(comparison.facts, name="<script>alert(1)</script>"))
    text = render_html(hostile, [])
    assert "script" not in Page(text).tags
    assert "&lt;script&gt;" in text


def test_the_page_and_the_terminal_say_what_to_use_and_warn(comparison: Comparison) -> None:
    warned = replace(comparison, warnings=["Mind the gap."])
    assert "Mind the gap." in render_html(warned, [])
    answer = f"Use {comparison.recommendation.pooling}."
    assert answer in render_html(comparison, [])
    assert print_comparison(comparison)[-1].startswith(answer)


def test_the_report_is_written_into_a_new_folder(comparison: Comparison, tmp_path: Path) -> None:
    files = write_report(comparison, tmp_path / "new" / "report")
    assert sorted(file.name for file in files) == [
        "heatmaps.png",
        "intervals.png",
        "report.html",
        "scatter.png",
        "tsne.png",
    ]
    assert all(file.stat().st_size > 1000 for file in files)


def test_a_folder_that_cannot_be_made_is_refused(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidRequest, match="cannot be made"):
        write_report(comparison, tmp_path / "file" / "report")

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from cluster.errors import InvalidRequest
from cluster.evaluation.local import LocalModel
from cluster.evaluation.token_view import draw_tokens, print_table, to_json, view_tokens, visible
from cluster.types import PoolingType


def test_each_token_has_its_norm_and_its_similarities(model: LocalModel) -> None:
    view = view_tokens(model, "one two three")
    (hidden,) = model.hidden_states(["one two three"])
    mean = hidden.mean(axis=0)
    expected = hidden @ mean / (np.linalg.norm(hidden, axis=1) * np.linalg.norm(mean))
    assert [token.piece for token in view.tokens] == ["[CLS]", "one", "two", "three", "[SEP]"]
    assert view.norms == pytest.approx(np.linalg.norm(hidden, axis=1))
    assert view.similarities[PoolingType.MEAN] == pytest.approx(expected, abs=1e-6)
    assert view.similarities[PoolingType.CLS][0] == pytest.approx(1.0, abs=1e-6)
    assert view.similarities[PoolingType.LAST][-1] == pytest.approx(1.0, abs=1e-6)


def test_the_json_has_one_entry_for_each_token(model: LocalModel) -> None:
    found = to_json(view_tokens(model, "one two"))
    assert [entry["special"] for entry in found["tokens"]] == [True, False, False, True]
    assert set(found["tokens"][0]["similarity"]) == {"mean", "cls", "last"}
    assert found["dimensions"] == 16


def test_the_table_stays_aligned_where_characters_are_wide(model: LocalModel) -> None:
    lines = print_table(view_tokens(model, "北京 is"))
    assert "北京" in lines[2]
    # Two wide characters take four columns of a terminal.
    assert [len(line) for line in lines] == [len(lines[0])] * 2 + [len(lines[0]) - 2] + [len(lines[0])] * 2


@pytest.mark.parametrize(("piece", "shown"), [(" a", "␣a"), ("\n", "⏎"), ("", "(empty)"), ("\x1b[0m", "\\x1b[0m")])
def test_no_token_is_blank_or_steers_the_terminal(piece: str, shown: str) -> None:
    assert visible(piece) == shown


@pytest.mark.parametrize("words", [1, 150])
def test_the_picture_is_a_png_of_bounded_height(model: LocalModel, words: int) -> None:
    png = draw_tokens(view_tokens(model, "word " * words))
    pixels = matplotlib.image.imread(io.BytesIO(png), format="png")
    assert pixels.shape[0] < 4000
    assert pixels.std() > 0.02


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_refused(model: LocalModel, text: str) -> None:
    with pytest.raises(InvalidRequest, match="the text is empty"):
        view_tokens(model, text)

"""What none returns for one text, token by token, and what pooling makes of it."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.errors import EngineError, InvalidRequest
from cluster.evaluation.figures import COLOUR_MAP, COLOURS, GREY, new_figure, png_bytes, shorten
from cluster.evaluation.sources import HiddenStateSource, Token
from cluster.pooling import pool_one
from cluster.types import Float32, PoolingType

POOLED = (PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST)
_MOST_DRAWN = 100
_PIECE_CHARACTERS = 28
_INVISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True, slots=True)
class TokenView:
    """One text's tokens.

    Attributes:
        norms: float32 ``[n_tokens]``, Euclidean norm of each token's vector.
        similarities: for mean, cls and last float32 ``[n_tokens]``, the cosine of each token's vector with the pooled one.
    """

    text: str
    tokens: list[Token]
    norms: Float32
    similarities: dict[PoolingType, Float32]
    dimensions: int


def view_tokens(source: HiddenStateSource, text: str) -> TokenView:
    """Encode one text and compare each token's vector with the pooled ones.

    Raises:
        InvalidRequest: the text is empty.
        EngineError: tokens and vectors do not agree in number.
    """
    if not text.strip():
        raise InvalidRequest("the text is empty; give one with at least one word")
    tokens = source.tokens(text)
    hidden = next(iter(source.hidden_states([text])))
    if len(hidden) < len(tokens) and source.cut_tokens:
        raise InvalidRequest(f"the text has {len(tokens)} tokens and the model takes {len(hidden)}; shorten it")
    if len(tokens) != len(hidden):
        raise EngineError(f"the text has {len(tokens)} tokens and {len(hidden)} vectors came back; report this")
    norms = np.linalg.norm(hidden, axis=1)
    return TokenView(
        text=text,
        tokens=tokens,
        norms=norms,
        similarities={pooling: _cosines(hidden, norms, pool_one(hidden, pooling)) for pooling in POOLED},
        dimensions=hidden.shape[1],
    )


def _cosines(hidden: Float32, norms: Float32, pooled: Float32) -> Float32:
    scale = norms * float(np.linalg.norm(pooled))
    return np.asarray(np.divide(hidden @ pooled, scale, out=np.zeros_like(norms), where=scale > 0))


def to_json(view: TokenView) -> dict[str, Any]:
    """Return the view, ready for ``json.dumps``."""
    return {
        "text": view.text,
        "dimensions": view.dimensions,
        "tokens": [
            {
                "id": token.id,
                "piece": token.piece,
                "special": token.special,
                "norm": float(view.norms[position]),
                "similarity": {pooling: float(values[position]) for pooling, values in view.similarities.items()},
            }
            for position, token in enumerate(view.tokens)
        ],
    }


def print_table(view: TokenView) -> list[str]:
    """Return the view as lines of a table for the terminal."""
    pieces = [visible(token.piece) for token in view.tokens]
    width = max(5, *(_columns(piece) for piece in pieces))
    lines = [f"{'':>4}  {'token':{width}}  {'id':>7}  {'norm':>8}" + "".join(f"  {p:>6}" for p in POOLED)]
    for position, (token, piece) in enumerate(zip(view.tokens, pieces, strict=True)):
        padding = " " * (width - _columns(piece))
        similarities = "".join(f"  {float(view.similarities[pooling][position]):6.3f}" for pooling in POOLED)
        lines.append(
            f"{position:>4}  {piece}{padding}  {token.id:>7}  {float(view.norms[position]):8.3f}{similarities}"
        )
    return lines


def visible(piece: str) -> str:
    """Return a token's text with its spaces and breaks made visible, so that a token is never blank."""
    shown = piece.translate(_INVISIBLE)
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in shown) or "(empty)"


def _columns(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)


def draw_tokens(view: TokenView) -> bytes:
    """Draw the tokens from top to bottom, norms as bars and similarities as a heat map; returns a PNG.

    A text of more than 100 tokens is drawn up to there.
    """
    count = min(len(view.tokens), _MOST_DRAWN)
    figure = new_figure(8.6, 1.5 + 0.29 * count)
    bars, grid = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    colours = [GREY if token.special else COLOURS[0] for token in view.tokens[:count]]
    bars.barh(range(count), view.norms[:count], color=colours, height=0.72)
    names = [f"{shorten(visible(token.piece), _PIECE_CHARACTERS)}   {token.id}" for token in view.tokens[:count]]
    bars.set_yticks(range(count), names, parse_math=False)
    bars.set_ylim(count - 0.5, -0.5)
    bars.set_title("norm of the vector (grey: special token)", fontsize=10)
    bars.tick_params(axis="y", length=0)
    bars.grid(axis="x", color="#dddddd")
    bars.set_axisbelow(True)
    values = np.stack([view.similarities[pooling][:count] for pooling in POOLED], axis=1)
    lowest = min(0.0, float(values.min()))
    image = grid.imshow(values, cmap=COLOUR_MAP, vmin=lowest, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = (value - lowest) / (1 - lowest) < 0.55
        grid.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    grid.set_xticks(range(len(POOLED)), [str(pooling) for pooling in POOLED])
    grid.tick_params(axis="both", length=0)
    grid.tick_params(axis="y", labelleft=False)
    grid.set_title("cosine with the pooled vector", fontsize=10)
    figure.colorbar(image, ax=grid, label="cosine")
    more = f" (the first {count} of {len(view.tokens)} tokens)" if count < len(view.tokens) else ""
    figure.suptitle(shorten(view.text, 70) + more, fontsize=11, parse_math=False)
    return png_bytes(figure)

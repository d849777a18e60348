"""How all pictures look: fonts, colours that colour-blind readers can tell apart, panels, PNG bytes.

Figures are made without ``pyplot``, which keeps global state and looks for a display.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

from cluster.types import PoolingType

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which is faint on white. Shapes repeat what the colours say.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#767676"
COLOUR_MAP = "cividis"
POOLING_COLOURS = {
    PoolingType.MEAN: COLOURS[0],
    PoolingType.CLS: COLOURS[1],
    PoolingType.LAST: COLOURS[2],
    PoolingType.WEIGHTED: COLOURS[3],
}
_FURTHER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
)
_DOTS_PER_INCH = 120
_PANEL_INCHES = 4.6


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty figure whose layout keeps labels from overlapping."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained", dpi=_DOTS_PER_INCH)


def panels(count: int, panel_inches: float = _PANEL_INCHES, **options: Any) -> tuple[Figure, list[Any]]:
    """Return a figure with ``count`` panels, two in a row, and its axes; ``options`` are those of ``subplots``."""
    columns = min(count, 2)
    rows = -(-count // columns)
    figure = new_figure(columns * panel_inches, rows * panel_inches * 0.92)
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def shorten(text: str, characters: int) -> str:
    """Return the text on one line, cut at a word where it is too long, as plain text for a label."""
    line = " ".join(text.split())
    if len(line) <= characters:
        return line
    cut = textwrap.shorten(line, characters, placeholder=" …")
    # Scripts without spaces have no word to cut at.
    return cut if len(cut) > characters // 2 else line[: characters - 1] + "…"


def png_bytes(figure: Figure) -> bytes:
    """Draw a figure as PNG."""
    from matplotlib import rc_context
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in _FURTHER_FONTS if name in installed)]
    buffer = io.BytesIO()
    with rc_context({"font.family": families}), warnings.catch_warnings():
        # A script that no installed font has is drawn as boxes; the picture is still worth having.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for text in figure.findobj(lambda artist: hasattr(artist, "set_fontfamily")):
            text.set_fontfamily(families)  # type: ignore[attr-defined]  # only those that have it are found
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.1)
    return buffer.getvalue()

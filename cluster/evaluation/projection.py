"""t-SNE of each pooling type's space, side by side, drawn from the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.evaluation.comparison import Comparison
from cluster.evaluation.data import LabelledTexts, Retrieval, ScoredPairs
from cluster.evaluation.figures import COLOUR_MAP, COLOURS, GREY, MARKERS, panels, png_bytes, shorten
from cluster.types import Float32, Int64

_MOST_PAIRS = 150
_MOST_TEXTS = 800
_MOST_QUERIES = 40
_LABEL_CHARACTERS = 24
_PERPLEXITY = 30


def project(vectors: Float32, seed: int) -> Float32:
    """Lay vectors out in the plane by t-SNE on cosine distance (van der Maaten and Hinton 2008).

    Args:
        vectors: float32 ``[n, dimensions]``, n ≥ 3.

    Returns:
        float32 ``[n, 2]``; the same for the same vectors and seed.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if not np.ptp(vectors, axis=0).any():
        # Principal components, from which t-SNE starts, do not exist where all vectors are the same.
        return np.zeros((len(vectors), 2), dtype=np.float32)
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    # Threads that wait for each other by spinning stall for minutes where other processes want the cores.
    with threadpool_limits(1):
        points = TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=seed).fit_transform(vectors)
    return np.asarray(points, dtype=np.float32)


def draw_projection(comparison: Comparison) -> tuple[str, str, bytes]:
    """Draw the texts of the data; returns title, caption and PNG. Labels come first, then retrieval, then pairs."""
    data = comparison.data
    if data.labels is not None:
        return _draw_labels(comparison, data.labels)
    if data.retrieval is not None:
        return _draw_retrieval(comparison, data.retrieval)
    assert data.pairs is not None
    return _draw_pairs(comparison, data.pairs)


_READING = "t-SNE keeps neighbours together; distances between far groups, and the axes, mean nothing."


def _draw_labels(comparison: Comparison, data: LabelledTexts) -> tuple[str, str, bytes]:
    chosen = _sample(len(data.texts), _MOST_TEXTS, comparison.settings.seed)
    rows = comparison.spaces.rows(comparison.settings.prompt + data.texts[i] for i in chosen)
    labels = [data.labels[i] for i in chosen]
    names = sorted(set(labels), key=lambda label: (-labels.count(label), label))
    shown, others = names[: len(COLOURS)], names[len(COLOURS) :]
    member = np.asarray([names.index(label) for label in labels])
    figure, axes = _clear_panels(comparison)
    for axis, space in zip(axes, comparison.spaces.vectors.values(), strict=True):
        points = project(space[rows], comparison.settings.seed)
        rest = points[member >= len(shown)]
        axis.scatter(rest[:, 0], rest[:, 1], s=10, color=GREY, alpha=0.5, linewidths=0)
        for number, colour in enumerate(COLOURS[: len(shown)]):
            group = points[member == number]
            axis.scatter(group[:, 0], group[:, 1], s=20, color=colour, marker=MARKERS[number], alpha=0.8, linewidths=0)
    entries = [
        _entry(shorten(name, _LABEL_CHARACTERS), MARKERS[number], COLOURS[number]) for number, name in enumerate(shown)
    ]
    if others:
        named = "1 other label" if len(others) == 1 else f"{len(others)} other labels"
        entries.append(_entry(named, "o", GREY))
    _add_legend(figure, entries)
    return "t-SNE of the labelled texts", f"One mark is one of {len(rows)} texts. {_READING}", png_bytes(figure)


def _draw_retrieval(comparison: Comparison, data: Retrieval) -> tuple[str, str, bytes]:
    settings = comparison.settings
    chosen = _sample(len(data.queries), _MOST_QUERIES, settings.seed)
    relevant = sorted({document for i in chosen for document in data.relevance[i]})
    further = [i for i in _sample(len(data.documents), _MOST_TEXTS, settings.seed) if i not in set(relevant)]
    documents = [*relevant, *further]
    document_rows = comparison.spaces.rows(settings.document_prompt + data.documents[i] for i in documents)
    query_rows = comparison.spaces.rows(settings.query_prompt + data.queries[i] for i in chosen)
    place = {document: position for position, document in enumerate(documents)}
    links = [(query, place[document]) for query, i in enumerate(chosen) for document in data.relevance[i]]
    figure, axes = _clear_panels(comparison)
    for axis, space in zip(axes, comparison.spaces.vectors.values(), strict=True):
        points = project(np.concatenate([space[document_rows], space[query_rows]]), settings.seed)
        papers, queries = points[: len(documents)], points[len(documents) :]
        _add_lines(axis, [(queries[query], papers[document]) for query, document in links], COLOURS[6])
        axis.scatter(papers[:, 0], papers[:, 1], s=10, color=GREY, alpha=0.5, linewidths=0)
        answers = papers[: len(relevant)]
        axis.scatter(answers[:, 0], answers[:, 1], s=22, color=COLOURS[0], marker="s", linewidths=0)
        axis.scatter(queries[:, 0], queries[:, 1], s=34, color=COLOURS[3], marker="^", linewidths=0)
    _add_legend(
        figure,
        [
            _entry("query", "^", COLOURS[3]),
            _entry("document that answers it", "s", COLOURS[0]),
            _entry("other document", "o", GREY),
        ],
    )
    caption = f"{len(chosen)} queries, each joined to the documents that answer it: the shorter the lines, the better. {_READING}"
    return "t-SNE of queries and documents", caption, png_bytes(figure)


def _draw_pairs(comparison: Comparison, data: ScoredPairs) -> tuple[str, str, bytes]:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    settings = comparison.settings
    chosen = np.asarray(_sample(len(data.first), _MOST_PAIRS, settings.seed))
    # Similar pairs are drawn last, so that their short lines are not hidden.
    chosen = chosen[np.argsort(data.scores[chosen], kind="stable")]
    first = comparison.spaces.rows(settings.prompt + data.first[i] for i in chosen)
    second = comparison.spaces.rows(settings.prompt + data.second[i] for i in chosen)
    rows, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    scale = ScalarMappable(Normalize(float(data.scores.min()), float(data.scores.max())), colormaps[f"{COLOUR_MAP}_r"])
    colours = scale.to_rgba(data.scores[chosen])
    figure, axes = _clear_panels(comparison)
    for axis, space in zip(axes, comparison.spaces.vectors.values(), strict=True):
        points = project(space[rows], settings.seed)
        ends = points[place[: len(chosen)]], points[place[len(chosen) :]]
        _add_lines(axis, list(zip(*ends, strict=True)), colours)
        for side in ends:
            axis.scatter(side[:, 0], side[:, 1], s=16, c=colours, zorder=3, edgecolors="white", linewidths=0.3)
    figure.colorbar(scale, ax=axes, shrink=0.5, label="score of the pair in the data")
    caption = (
        f"The two texts of each of {len(chosen)} pairs are joined by a line. A good space keeps pairs of high score (dark) "
        f"together: dark lines are short. {_READING}"
    )
    return "t-SNE of the pairs", caption, png_bytes(figure)


def _clear_panels(comparison: Comparison) -> tuple[Any, list[Any]]:
    figure, axes = panels(len(comparison.pooling_types))
    for axis, pooling in zip(axes, comparison.pooling_types, strict=True):
        axis.set_title(str(pooling), fontsize=12)
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, axes


def _sample(count: int, most: int, seed: int) -> list[int]:
    if count <= most:
        return list(range(count))
    chosen: Int64 = np.random.default_rng(seed).choice(count, most, replace=False)
    return sorted(chosen.tolist())


def _add_lines(axis: Any, segments: Sequence[tuple[Float32, Float32]], colours: Any) -> None:
    from matplotlib.collections import LineCollection

    axis.add_collection(
        LineCollection(list(map(np.stack, segments)), colors=colours, linewidths=1.0, alpha=0.75, zorder=1)
    )


def _entry(name: str, marker: str, colour: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", marker=marker, color=colour, markersize=7, label=name)


def _add_legend(figure: Any, entries: Sequence[Any]) -> None:
    # A label that begins with an underscore is hidden from legends unless it is handed over by name.
    names = [entry.get_label() for entry in entries]
    legend = figure.legend(entries, names, loc="outside lower center", ncols=min(4, len(entries)), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)

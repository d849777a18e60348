"""Pictures of a comparison: figures with their intervals, score against cosine, similarity heat maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.evaluation.comparison import Comparison
from cluster.evaluation.data import LabelledTexts, Retrieval, ScoredPairs
from cluster.evaluation.figures import COLOUR_MAP, POOLING_COLOURS, new_figure, panels, png_bytes, shorten
from cluster.evaluation.metrics import cosine_of_pairs
from cluster.evaluation.projection import draw_projection
from cluster.types import Float32, Int64

_MAP_TEXTS = 12
_LABEL_CHARACTERS = 34


@dataclass(frozen=True, slots=True)
class Picture:
    """One PNG: a name for its file, what it shows, and how to read it."""

    name: str
    title: str
    caption: str
    png: bytes


def draw_all(comparison: Comparison) -> list[Picture]:
    """Draw every picture that the data allow."""
    pictures = [draw_intervals(comparison)]
    data = comparison.data
    if data.pairs is not None:
        pictures.append(draw_scatter(comparison, data.pairs))
    pictures.append(draw_heat_maps(comparison))
    if len(comparison.spaces.index) > 3:
        title, caption, png = draw_projection(comparison)
        pictures.append(Picture("tsne", title, caption, png))
    return pictures


def draw_intervals(comparison: Comparison) -> Picture:
    """Draw each metric of each pooling type with its 95 % interval."""
    metrics = [(task.kind, metric) for task in comparison.tasks for metric in task.metrics]
    pooling_types = comparison.pooling_types
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = new_figure(4.0 * columns + 0.6, 0.36 * len(pooling_types) * rows + 0.95 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (kind, metric) in zip(axes, metrics, strict=False):
        for height, pooling in enumerate(reversed(pooling_types)):
            estimate = metric.estimates[pooling]
            colour = POOLING_COLOURS[pooling]
            axis.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=2.5)
            axis.plot(estimate.value, height, "o", color=colour, markersize=7)
        axis.set_yticks(range(len(pooling_types)), list(reversed(pooling_types)))
        axis.set_ylim(-0.6, len(pooling_types) - 0.4)
        axis.set_title(f"{metric.name} ({kind})", fontsize=11)
        axis.grid(axis="x", color="#dddddd")
        axis.set_axisbelow(True)
    for unused in axes[len(metrics) :]:
        unused.set_axis_off()
    return Picture(
        "intervals",
        "Figures with their 95 % intervals",
        "Dot: the figure on the whole set. Bar: 95 % of the bootstrap's resamples. Bars may overlap where the paired "
        "difference is still real; the table of differences decides.",
        png_bytes(figure),
    )


def draw_scatter(comparison: Comparison, pairs: ScoredPairs) -> Picture:
    """Draw each pair's cosine against its score."""
    prompt = comparison.settings.prompt
    first = comparison.spaces.rows(prompt + text for text in pairs.first)
    second = comparison.spaces.rows(prompt + text for text in pairs.second)
    metric = next(task for task in comparison.tasks if task.kind == "pairs").deciding
    figure, axes = panels(len(comparison.pooling_types), sharex=True, sharey=True)
    for axis, pooling in zip(axes, comparison.pooling_types, strict=True):
        cosine = cosine_of_pairs(comparison.spaces.vectors[pooling], first, second)
        alpha = float(np.clip(150 / len(cosine), 0.08, 0.8))
        axis.scatter(pairs.scores, cosine, s=14, alpha=alpha, color=POOLING_COLOURS[pooling], linewidths=0)
        axis.plot(*_running_median(pairs.scores, cosine), color="black", linewidth=1.8)
        axis.set_title(f"{pooling}: Spearman {metric.estimates[pooling].value:.4f}", fontsize=11)
        axis.grid(color="#dddddd")
        axis.set_axisbelow(True)
    figure.supxlabel("score in the data", fontsize=11)
    figure.supylabel("cosine of the two texts", fontsize=11)
    return Picture(
        "scatter",
        "Cosine against score",
        "One dot is one pair. The black line is the median cosine of pairs with about the same score: the straighter and "
        "steeper it climbs, and the closer the dots keep to it, the better.",
        png_bytes(figure),
    )


def _running_median(scores: Float32, cosine: np.ndarray) -> tuple[list[float], list[float]]:
    order = np.argsort(scores, kind="stable")
    groups = [group for group in np.array_split(order, min(12, max(1, len(order) // 8))) if len(group)]
    return [float(np.median(scores[g])) for g in groups], [float(np.median(cosine[g])) for g in groups]


def draw_heat_maps(comparison: Comparison) -> Picture:
    """Draw the cosines of a dozen texts with each other, the same texts and the same colours for every pooling type."""
    rows, columns, row_texts, caption = _texts_of_map(comparison)
    maps = {
        pooling: space[rows].astype(np.float64) @ space[columns].astype(np.float64).T
        for pooling, space in comparison.spaces.vectors.items()
    }
    lowest = min(float(values.min()) for values in maps.values())
    figure, axes = panels(len(maps), 5.4)
    images = []
    for position, (axis, (pooling, values)) in enumerate(zip(axes, maps.items(), strict=True)):
        images.append(axis.imshow(values, cmap=COLOUR_MAP, vmin=lowest, vmax=1.0))
        axis.set_title(str(pooling), fontsize=12)
        axis.set_xticks(range(len(columns)), range(1, len(columns) + 1), fontsize=8)
        names = [f"{shorten(text, _LABEL_CHARACTERS)}  {number}" for number, text in enumerate(row_texts, 1)]
        shown = names if position % 2 == 0 else [str(number) for number in range(1, len(rows) + 1)]
        axis.set_yticks(range(len(rows)), shown, fontsize=8, parse_math=False)
        axis.tick_params(length=0)
    figure.set_figwidth(figure.get_figwidth() + 2.2)
    figure.colorbar(images[0], ax=axes, shrink=0.5, label="cosine")
    return Picture("heatmaps", "Similarity of a few texts", caption, png_bytes(figure))


def _texts_of_map(comparison: Comparison) -> tuple[Int64, Int64, list[str], str]:
    data, settings, spaces = comparison.data, comparison.settings, comparison.spaces
    if data.pairs is not None:
        chosen = _spread(np.argsort(-data.pairs.scores, kind="stable"))
        first = [data.pairs.first[i] for i in chosen]
        return (
            spaces.rows(settings.prompt + text for text in first),
            spaces.rows(settings.prompt + data.pairs.second[i] for i in chosen),
            first,
            "Rows are first texts of pairs, columns their second texts, in the same order, the most similar pair at the top "
            "left. A good space has a diagonal that fades from yellow to blue, and blue beside it.",
        )
    if data.labels is not None:
        return _labelled_map(data.labels, comparison)
    retrieval = data.retrieval
    assert retrieval is not None
    return _retrieval_map(retrieval, comparison)


def _labelled_map(labels: LabelledTexts, comparison: Comparison) -> tuple[Int64, Int64, list[str], str]:
    by_label: dict[str, list[int]] = {}
    for text, label in enumerate(labels.labels):
        by_label.setdefault(label, []).append(text)
    largest = sorted(by_label, key=lambda label: -len(by_label[label]))[: _MAP_TEXTS // 3]
    each = max(2, _MAP_TEXTS // len(largest))
    chosen = [text for label in largest for text in by_label[label][:each]]
    rows = comparison.spaces.rows(comparison.settings.prompt + labels.texts[i] for i in chosen)
    texts = [f"{labels.labels[i]}: {labels.texts[i]}" for i in chosen]
    caption = "Texts of one label stand together. A good space has yellow blocks on the diagonal, and blue beside them."
    return rows, rows, texts, caption


def _retrieval_map(data: Retrieval, comparison: Comparison) -> tuple[Int64, Int64, list[str], str]:
    chosen = _spread(np.arange(len(data.queries)))
    best = [max(data.relevance[i], key=lambda document: data.relevance[i][document]) for i in chosen]
    queries = [data.queries[i] for i in chosen]
    return (
        comparison.spaces.rows(comparison.settings.query_prompt + text for text in queries),
        comparison.spaces.rows(comparison.settings.document_prompt + data.documents[i] for i in best),
        queries,
        "Rows are queries, columns a document that answers each, in the same order. A good space has a yellow diagonal and "
        "blue beside it.",
    )


def _spread(order: Int64) -> list[int]:
    positions = np.unique(np.linspace(0, len(order) - 1, min(_MAP_TEXTS, len(order))).astype(np.int64))
    return [int(i) for i in order[positions]]

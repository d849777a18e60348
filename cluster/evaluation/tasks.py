"""Measures all spaces on one kind of validation data. The first metric of a task is the one that decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.evaluation.bootstrap import Metric, mean_of, measure
from cluster.evaluation.data import LabelledTexts, Retrieval, ScoredPairs
from cluster.evaluation.metrics import (
    cosine_of_pairs,
    pearson,
    rank_documents,
    silhouettes,
    spearman,
    v_measure,
    vote_of_neighbours,
)
from cluster.evaluation.spaces import Spaces
from cluster.types import Int64

_POSITIVE_SHARE = 0.8
_MOST_POSITIVES = 20_000


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    Attributes:
        resamples: of the bootstrap.
        seed: of the bootstrap, of k-means, and of every sample that is drawn.
        neighbours: that vote on a text's label.
        recall_depth: k of recall@k.
        query_prompt, document_prompt: set before each query and document of a retrieval set.
        prompt: set before every other text.
    """

    resamples: int = 2000
    seed: int = 0
    neighbours: int = 5
    recall_depth: int = 10
    query_prompt: str = ""
    document_prompt: str = ""
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What was measured on one kind of data.

    Attributes:
        kind: ``pairs``, ``retrieval`` or ``labels``.
        size: what the data are, in words.
        metrics: the deciding one first.
        positives: int64 ``[n, 2]``, rows of the spaces whose texts belong together.
    """

    kind: str
    size: str
    metrics: list[Metric]
    positives: Int64

    @property
    def deciding(self) -> Metric:
        """The metric that decides."""
        return self.metrics[0]


def measure_pairs(spaces: Spaces, pairs: ScoredPairs, settings: Settings) -> TaskResult:
    """Correlate cosines with scores. Pairs in the top fifth of the scale belong together."""
    first = spaces.rows(settings.prompt + text for text in pairs.first)
    second = spaces.rows(settings.prompt + text for text in pairs.second)
    scores = pairs.scores.astype(np.float64)
    cosines = {pooling: cosine_of_pairs(space, first, second) for pooling, space in spaces.vectors.items()}
    sampling = len(scores), settings.resamples, settings.seed
    lowest, highest = float(scores.min()), float(scores.max())
    positive = (scores >= lowest + _POSITIVE_SHARE * (highest - lowest)) & (first != second)
    return TaskResult(
        "pairs",
        f"{len(scores)} scored pairs",
        [
            measure("spearman", {pooling: spearman(cosine, scores) for pooling, cosine in cosines.items()}, *sampling),
            measure("pearson", {pooling: pearson(cosine, scores) for pooling, cosine in cosines.items()}, *sampling),
        ],
        np.stack([first[positive], second[positive]], axis=1),
    )


def measure_retrieval(spaces: Spaces, data: Retrieval, settings: Settings) -> TaskResult:
    """Rank the corpus for each query. A query and its relevant documents belong together."""
    documents = spaces.rows(settings.document_prompt + text for text in data.documents)
    queries = spaces.rows(settings.query_prompt + text for text in data.queries)
    judged = {
        pooling: rank_documents(space[documents], space[queries], data.relevance, settings.recall_depth)
        for pooling, space in spaces.vectors.items()
    }
    names = list(next(iter(judged.values())))
    positives = [
        (queries[query], documents[document])
        for query, grades in enumerate(data.relevance)
        for document in grades
        if queries[query] != documents[document]
    ]
    return TaskResult(
        "retrieval",
        f"{len(data.queries)} queries over {len(data.documents)} documents",
        [
            measure(
                name,
                {pooling: mean_of(values[name]) for pooling, values in judged.items()},
                len(data.queries),
                settings.resamples,
                settings.seed,
            )
            for name in names
        ],
        np.asarray(positives, dtype=np.int64).reshape(-1, 2),
    )


def measure_labels(spaces: Spaces, data: LabelledTexts, settings: Settings) -> TaskResult:
    """See how far neighbours and clusters follow the labels. Texts of one label belong together."""
    rows = spaces.rows(settings.prompt + text for text in data.texts)
    names, labels = np.unique(np.asarray(data.labels), return_inverse=True)
    labels = labels.astype(np.int64)
    chosen = {pooling: space[rows] for pooling, space in spaces.vectors.items()}
    sampling = len(rows), settings.resamples, settings.seed
    votes = {p: mean_of(vote_of_neighbours(v, labels, settings.neighbours)) for p, v in chosen.items()}
    return TaskResult(
        "labels",
        f"{len(rows)} texts of {len(names)} labels",
        [
            measure(f"{settings.neighbours}-nn accuracy", votes, *sampling),
            measure("silhouette", {p: mean_of(silhouettes(v, labels)) for p, v in chosen.items()}, *sampling),
            measure("v-measure", {p: v_measure(v, labels, settings.seed) for p, v in chosen.items()}, *sampling),
        ],
        _pairs_of_labels(rows, labels, settings.seed),
    )


def _pairs_of_labels(rows: Int64, labels: Int64, seed: int) -> Int64:
    generator = np.random.default_rng(seed)
    pairs = generator.integers(len(rows), size=(_MOST_POSITIVES, 2))
    alike = (labels[pairs[:, 0]] == labels[pairs[:, 1]]) & (rows[pairs[:, 0]] != rows[pairs[:, 1]])
    return np.asarray(rows[pairs[alike]], dtype=np.int64)

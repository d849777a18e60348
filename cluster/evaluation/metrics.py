"""Figures of merit of one space: correlations of pairs, retrieval, agreement with labels. Larger is better in all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.evaluation.bootstrap import Float64, Statistic
from cluster.types import Float32, Int64

_BLOCK_QUERIES = 64
NDCG_DEPTH = 10


def cosine_of_pairs(vectors: Float32, first: Int64, second: Int64) -> Float64:
    """Return the cosine of each pair, float64 ``[n]``, of rows of norm 1."""
    return np.asarray(np.einsum("ij,ij->i", vectors[first], vectors[second], dtype=np.float64))


def pearson(similarities: Float64, scores: Float64) -> Statistic:
    """Return the statistic: Pearson's correlation of similarities and scores, float64 ``[n]`` each."""
    return lambda indices: _correlate(similarities[indices], scores[indices])


def spearman(similarities: Float64, scores: Float64) -> Statistic:
    """Return the statistic: Spearman's correlation; equal values share their mean rank."""
    from scipy.stats import rankdata

    def correlate(indices: Int64) -> Float64:
        return _correlate(rankdata(similarities[indices], axis=1), rankdata(scores[indices], axis=1))

    return correlate


def _correlate(left: Float64, right: Float64) -> Float64:
    left = left - left.mean(axis=1, keepdims=True)
    right = right - right.mean(axis=1, keepdims=True)
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    product = (left * right).sum(axis=1)
    # A resample of equal values correlates with nothing.
    return np.asarray(np.divide(product, scale, out=np.zeros_like(product), where=scale > 0))


def rank_documents(
    documents: Float32, queries: Float32, relevance: Sequence[dict[int, float]], depth: int
) -> dict[str, Float64]:
    """Rank all documents for each query by cosine and judge the ranking.

    Documents of equal similarity keep the corpus's order.

    Args:
        documents: float32 ``[n_documents, dimensions]``, rows of norm 1.
        queries: float32 ``[n_queries, dimensions]``, rows of norm 1.
        relevance: for each query, document's row → grade (> 0); none is empty.
        depth: of recall.

    Returns:
        float64 ``[n_queries]`` under each of ``ndcg@10`` (linear gain, Järvelin and Kekäläinen 2002), ``mrr`` (reciprocal
        rank of the first relevant document in the whole ranking) and ``recall@depth``.
    """
    ndcg, reciprocal, recall = (np.zeros(len(queries)) for _ in range(3))
    discounts = 1 / np.log2(np.arange(NDCG_DEPTH) + 2)
    for begin in range(0, len(queries), _BLOCK_QUERIES):
        ranking = np.argsort(-(queries[begin : begin + _BLOCK_QUERIES] @ documents.T), axis=1, kind="stable")
        for query, order in enumerate(ranking, start=begin):
            grades = np.zeros(len(documents))
            grades[list(relevance[query])] = list(relevance[query].values())
            ranked = grades[order]
            ideal = np.sort(grades)[::-1][:NDCG_DEPTH]
            ndcg[query] = ranked[:NDCG_DEPTH] @ discounts[: len(ideal)] / (ideal @ discounts[: len(ideal)])
            reciprocal[query] = 1 / (1 + int(np.argmax(ranked > 0)))
            recall[query] = np.count_nonzero(ranked[:depth]) / len(relevance[query])
    return {f"ndcg@{NDCG_DEPTH}": ndcg, "mrr": reciprocal, f"recall@{depth}": recall}


def vote_of_neighbours(vectors: Float32, labels: Int64, neighbours: int) -> Float64:
    """Return for each text 1.0 where the majority of its nearest other texts (cosine) has its label, else 0.0.

    The nearest of the labels that share a majority wins.

    Args:
        vectors: float32 ``[n, dimensions]``.
        labels: int64 ``[n]``, 0 … n_labels - 1.
    """
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=min(neighbours, len(vectors) - 1), metric="cosine").fit(vectors)
    votes = labels[index.kneighbors(return_distance=False)]
    right = np.empty(len(vectors))
    for text, vote in enumerate(votes):
        counts = np.bincount(vote)
        winner = next(label for label in vote.tolist() if counts[label] == counts.max())
        right[text] = winner == labels[text]
    return right


def silhouettes(vectors: Float32, labels: Int64) -> Float64:
    """Return each text's silhouette by cosine distance (Rousseeuw 1987), float64 ``[n]`` in [-1, 1]."""
    from sklearn.metrics import silhouette_samples

    return np.asarray(silhouette_samples(vectors, labels, metric="cosine"), dtype=np.float64)


def v_measure(vectors: Float32, labels: Int64, seed: int) -> Statistic:
    """Return the statistic: V-measure (Rosenberg and Hirschberg 2007) of k-means with one cluster for each label."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score
    from threadpoolctl import threadpool_limits

    # k-means cannot make more clusters than there are distinct vectors.
    clusters_wanted = min(int(labels.max()) + 1, len(np.unique(vectors, axis=0)))
    # Threads that wait for each other by spinning stall for minutes where other processes want the cores.
    with threadpool_limits(1):
        clusters = KMeans(n_clusters=clusters_wanted, n_init=10, random_state=seed).fit_predict(vectors)

    def agree(indices: Int64) -> Float64:
        return np.asarray([v_measure_score(labels[row], clusters[row]) for row in indices], dtype=np.float64)

    return agree

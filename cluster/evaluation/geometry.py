"""The shape of a space: alignment, uniformity and anisotropy. They explain a result; they do not decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.types import Float32, Int64

_MOST_TEXTS = 2_000


@dataclass(frozen=True, slots=True)
class Geometry:
    """Three figures of one space; smaller is better in all, but each alone can be had for nothing.

    Attributes:
        alignment: mean squared distance of texts that belong together (Wang and Isola 2020), 0 to 4; None where the data
            names none.
        uniformity: log of the mean of ``exp(-2·distance²)`` over all pairs of texts (the same source); 0 is one point, and
            about -4 an even spread over the sphere.
        anisotropy: mean cosine of two different texts (Ethayarajh 2019); near 1 all vectors lie in a narrow cone.
    """

    alignment: float | None
    uniformity: float
    anisotropy: float


def describe_space(vectors: Float32, positives: Int64, seed: int) -> Geometry:
    """Describe a space.

    Args:
        vectors: float32 ``[n, dimensions]`` of distinct texts, rows of norm 1. Uniformity looks at 2,000 of them at most.
        positives: int64 ``[n_positives, 2]``, rows of texts that belong together.
    """
    from scipy.spatial.distance import pdist

    count = len(vectors)
    wide = vectors.astype(np.float64)
    sample = wide
    if count > _MOST_TEXTS:
        sample = wide[np.random.default_rng(seed).choice(count, _MOST_TEXTS, replace=False)]
    uniformity = float(np.log(np.exp(-2 * pdist(sample, "sqeuclidean")).mean()))
    # Σ over pairs of the cosines, without making the pairs: |Σv|² counts each pair twice and each text with itself.
    total = float((wide.sum(axis=0) ** 2).sum())
    anisotropy = (total - float((wide**2).sum())) / (count * (count - 1))
    alignment = None
    if len(positives):
        alignment = float(((wide[positives[:, 0]] - wide[positives[:, 1]]) ** 2).sum(axis=1).mean())
    return Geometry(alignment, uniformity, anisotropy)

"""From numbers to scores: activation, MaxSim, order.

A classification head's outputs are what the GGUF's graph ends in; ``ModelFacts.score_type`` says what that is. MaxSim is that of
ColBERT (Khattab and Zaharia 2020, equation 3): for each token of the query the largest cosine with any token of the document,
summed over the query's tokens.
"""

from __future__ import annotations

import numpy as np

from cluster.config import Activation
from cluster.types import Float32, Int32, Int64, ScoreType


def to_unit_interval(
    outputs: Float32, score_type: ScoreType, activation: Activation | None = None
) -> tuple[Float32, ScoreType]:
    """Map a head's outputs to [0, 1]; what the graph has mapped there already stays as it is.

    Args:
        outputs: float32 ``[n, n_labels]``.
        activation: what the configuration says; None chooses by ``score_type``: sigmoid for one logit, softmax for several,
            ``(1 + x) / 2`` for a tanh, which is the sigmoid of twice its logit.

    Returns:
        float32 ``[n, n_labels]`` and what they are now.
    """
    if activation is None:
        if score_type is ScoreType.PROBABILITY:
            return outputs, score_type
        if score_type is ScoreType.TANH:
            return np.asarray((1.0 + outputs) / 2.0, dtype=np.float32), ScoreType.PROBABILITY
        activation = Activation.SIGMOID if outputs.shape[1] == 1 else Activation.SOFTMAX
    if activation is Activation.NONE:
        return outputs, score_type
    return (sigmoid(outputs) if activation is Activation.SIGMOID else softmax(outputs)), ScoreType.PROBABILITY


def sigmoid(x: Float32) -> Float32:
    """1 / (1 + e^-x) in float32, without overflow at either end."""
    small = np.exp(-np.abs(x.astype(np.float64)))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1.0 + small), dtype=np.float32)


def softmax(x: Float32) -> Float32:
    """Softmax of each row, float32 ``[n, k]``."""
    powers = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def max_sim(query: Float32, documents: Float32, offsets: Int64) -> Float32:
    """Score documents for one query by late interaction.

    With one row for each text, it is their cosine.

    Args:
        query: float32 ``[query_tokens, dimensions]``, not normalised.
        documents: float32 ``[total_tokens, dimensions]``, not normalised.
        offsets: int64 ``[n + 1]`` into the rows of ``documents``; no document is empty.

    Returns:
        float32 ``[n]``.
    """
    # Scaling the products costs less than scaling the documents' rows: a query has fewer tokens than a row has dimensions.
    products = (query * _inverse_norms(query)[:, None]) @ documents.T
    products *= _inverse_norms(documents)
    return np.asarray(np.maximum.reduceat(products, offsets[:-1], axis=1).sum(axis=0), dtype=np.float32)


def max_sim_to_unit_interval(scores: Float32, query_tokens: Int32) -> Float32:
    """The mean over the query's tokens, clipped at 0: float32 ``[n]`` in [0, 1]."""
    return np.asarray(np.clip(scores / query_tokens, 0.0, 1.0), dtype=np.float32)


def best_first(scores: Float32, top_n: int | None) -> Int64:
    """Return the indices of the ``top_n`` largest scores, int64 ``[k]``; equal scores keep their order. None and 0 are all."""
    order = np.argsort(-scores, kind="stable")
    return order[:top_n] if top_n else order


def _inverse_norms(rows: Float32) -> Float32:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return np.asarray(np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0), dtype=np.float32)

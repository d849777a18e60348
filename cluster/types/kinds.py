"""Names for what the stages speak of: arrays, pooling types, lanes, scores, and the facts of a model."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class PoolingType(enum.StrEnum):
    """llama.cpp's five pooling types, and ``weighted``, which is ours (see ``cluster.pooling``)."""

    NONE = "none"
    MEAN = "mean"
    CLS = "cls"
    LAST = "last"
    RANK = "rank"
    WEIGHTED = "weighted"

    @property
    def code(self) -> int:
        """The number that stands for this pooling type in a packed message."""
        return _CODES[self]


_ORDER = tuple(PoolingType)
_CODES = {pooling: code for code, pooling in enumerate(_ORDER)}


def pooling_of(code: int) -> PoolingType:
    """Return the pooling type that ``code`` stands for."""
    return _ORDER[code]


class Lane(enum.StrEnum):
    """The two queues of every stage: short interactive requests do not wait behind bulk ingest."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class ScoreType(enum.StrEnum):
    """What a score is, and so which values it can have.

    ``logit`` is any number, ``probability`` lies in [0, 1], ``tanh`` and ``cosine`` lie in [-1, 1], and ``maxsim`` is a sum of
    cosines, one for each token of the query.
    """

    LOGIT = "logit"
    PROBABILITY = "probability"
    TANH = "tanh"
    COSINE = "cosine"
    MAXSIM = "maxsim"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a GGUF says of itself.

    Attributes:
        architecture: llama.cpp's name of the graph (``bert``, ``qwen3``).
        causal: a token sees only those before it.
        dimensions: width of a hidden state.
        context_tokens: the longest sequence the model was trained for.
        vocabulary_size: valid token ids are ``0 … vocabulary_size - 1``.
        trained_pooling: the pooling type in the GGUF, or None where it names none.
        labels: names of the classification head's outputs; empty without a head.
        score_type: what the head's outputs are when the graph ends.
        pooling_types: those that the model can honestly answer.
        refused: for each other pooling type, why not.
        segment_types: the second text of a pair was trained with token type 1, says the GGUF.
    """

    architecture: str
    causal: bool
    dimensions: int
    layers: int
    context_tokens: int
    vocabulary_size: int
    trained_pooling: PoolingType | None = None
    labels: tuple[str, ...] = ()
    score_type: ScoreType = ScoreType.LOGIT
    pooling_types: tuple[PoolingType, ...] = ()
    refused: dict[PoolingType, str] = field(default_factory=dict)
    segment_types: bool = False


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What the Tokenizer, which owns the model's files, tells the ingress.

    Attributes:
        max_tokens: of the longest sequence.
        special_tokens: set around a text.
        pair_tokens: of a pair whose two texts are empty: special tokens, or a template.
    """

    facts: ModelFacts
    fingerprint: str
    max_tokens: int
    special_tokens: int = 0
    pair_tokens: int = 0

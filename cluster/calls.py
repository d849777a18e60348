"""A request and its answer, free of any wire dialect: what ``cluster.api`` parses into and formats from.

An answer's numbers are bytes already: the Pooler stage prints each item once, and a dialect joins the pieces.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from cluster.config import Truncate
from cluster.types import Float32, Int32, Int64, Lane, PoolingType, ScoreType

Input = str | list[int] | list[str | int] | Int32
"""A text, token ids taken as they are (an array where the body was large), or llama-server's mixed form of texts and ids."""


class Encoding(enum.StrEnum):
    """How an item's numbers are printed."""

    JSON = "float"
    BASE64 = "base64"
    RAW = "raw"


class OutputType(enum.StrEnum):
    """Type of an item's numbers; binary kinds pack eight dimensions in a byte, MSB first, bit = 1 where x > 0."""

    FLOAT = "float"
    INT8 = "int8"
    UINT8 = "uint8"
    BINARY = "binary"
    UBINARY = "ubinary"


@dataclass(slots=True)
class AnswerOptions:
    """What the Pooler stage does to each item of one request.

    Attributes:
        normalize: llama.cpp's ``embd_normalize``: -1 none, 0 max-absolute, 1 taxicab, 2 Euclidean, p > 2 p-norm. None is the
            default: 2 for one vector, -1 for token matrices.
        dimensions: cut each vector to so many dimensions and normalise again.
        nested: print one vector as ``[[…]]``, as llama-server's own shape does; token matrices are always nested.
    """

    normalize: float | None = None
    dimensions: int | None = None
    encoding: Encoding = Encoding.JSON
    output_type: OutputType = OutputType.FLOAT
    nested: bool = False


@dataclass(slots=True)
class EmbedCall:
    """A request for vectors. None always means: the model's configured default."""

    inputs: list[Input]
    model: str | None = None
    pooling: PoolingType | None = None
    truncate: Truncate | None = None
    prompt_name: str | None = None
    prompt_param: str = "input_type"
    parse_special: bool | None = None
    lane: Lane | None = None
    timeout_s: float | None = None
    options: AnswerOptions = field(default_factory=AnswerOptions)
    param: str = "input"
    """Name of the field that errors about items point at (``input[17]``)."""
    listed: bool = True
    """Whether the client sent a list of inputs; errors about a single one outside any list point at the field itself."""


@dataclass(slots=True)
class EmbedAnswer:
    """The answer to an ``EmbedCall``; lists have one entry for each input, in order.

    Attributes:
        pieces: each item's printed numbers: JSON without surrounding members, base64 without quotes, or raw little-endian bytes.
        shapes: of each item before printing: ``(dimensions,)`` or ``(tokens, dimensions)``.
        tokens: encoded tokens; cut_tokens: what truncation removed.
        timings_s: seconds by part: ``tokenize``, ``queue``, ``encode``, ``pool``, and their sum ``total``.
        builds: of the engines that have computed the items, ``Engine.build`` of each.
    """

    model: str
    pooling: PoolingType
    fingerprint: str
    pieces: list[bytes | bytearray]
    shapes: list[tuple[int, ...]]
    tokens: list[int]
    cut_tokens: list[int]
    timings_s: dict[str, float] = field(default_factory=dict)
    builds: tuple[str, ...] = ()


@dataclass(slots=True)
class TokenizeCall:
    """A request for the ids of a text."""

    content: Input
    model: str | None = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    timeout_s: float | None = None


@dataclass(slots=True)
class DetokenizeCall:
    """A request for the text of ids, int32 ``[n]``."""

    ids: Int32
    model: str | None = None
    timeout_s: float | None = None


class Strategy(enum.StrEnum):
    """How documents are scored for a query.

    ``cross_encoder`` reads query and document together and needs a model with a classification head; ``late_interaction``
    compares their tokens' vectors (MaxSim), ``similarity`` their vectors (cosine), and any embedding model answers both.
    """

    CROSS_ENCODER = "cross_encoder"
    LATE_INTERACTION = "late_interaction"
    SIMILARITY = "similarity"


@dataclass(slots=True)
class RerankCall:
    """A request for the scores of documents. None always means: the model's or the configuration's default.

    Attributes:
        queries: one for all documents, or one for each.
        instruction: takes the place of the one in the model's template.
        top_n: how many of the best are answered; None and 0 are all.
        document_tokens: each document is cut to so many tokens of its own.
        sequence_tokens: what is encoded in one piece has at most so many tokens: a pair, or a document by itself.
        unit_interval: the scores are to lie in [0, 1].
        prompts: queries and documents get the prompts that the model has for them; not where the two are alike.
        query_param, param: names of the fields that errors about the query and the documents point at.
    """

    queries: list[str]
    documents: list[str]
    model: str | None = None
    strategy: Strategy | None = None
    instruction: str | None = None
    top_n: int | None = None
    document_tokens: int | None = None
    sequence_tokens: int | None = None
    truncate: Truncate | None = None
    unit_interval: bool = False
    prompts: bool = True
    lane: Lane | None = None
    timeout_s: float | None = None
    query_param: str = "query"
    param: str = "documents"


@dataclass(slots=True)
class RerankAnswer:
    """The answer to a ``RerankCall``.

    Attributes:
        scores: float32 ``[n]``, of each document in the order of the request.
        order: int64 ``[k]``, the best documents' indices, the best first; equal scores keep the order of the request.
        tokens: encoded tokens of each document, those of the query with them for a cross-encoder.
        cut_tokens: what truncation removed from each document.
        total_tokens: encoded for the whole request.
    """

    model: str
    strategy: Strategy
    pooling: PoolingType
    fingerprint: str
    score_type: ScoreType
    scores: Float32
    order: Int64
    tokens: list[int]
    cut_tokens: list[int]
    total_tokens: int
    timings_s: dict[str, float] = field(default_factory=dict)
    builds: tuple[str, ...] = ()


@dataclass(slots=True)
class ClassifyCall:
    """A request for all outputs of a classification head.

    Attributes:
        inputs: texts, or pairs of texts.
        unit_interval: the outputs are to lie in [0, 1].
    """

    inputs: list[str | tuple[str, str]]
    model: str | None = None
    truncate: Truncate | None = None
    unit_interval: bool = True
    lane: Lane | None = None
    timeout_s: float | None = None
    param: str = "input"


@dataclass(slots=True)
class ClassifyAnswer:
    """The answer to a ``ClassifyCall``: float32 ``[n, n_labels]`` scores, columns named by ``labels``."""

    model: str
    fingerprint: str
    score_type: ScoreType
    labels: tuple[str, ...]
    scores: Float32
    tokens: list[int]
    cut_tokens: list[int]
    timings_s: dict[str, float] = field(default_factory=dict)
    builds: tuple[str, ...] = ()

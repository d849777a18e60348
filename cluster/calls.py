"""A request and its answer, free of any wire dialect: what ``cluster.api`` parses into and formats from.

An answer's numbers are bytes already: the Pooler stage prints each item once, and a dialect joins the pieces.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from cluster.config import Truncate
from cluster.types import Lane, PoolingType

Input = str | list[int] | list[str | int]
"""A text, token ids taken as they are, or llama-server's mixed form of texts and ids."""


class Encoding(enum.StrEnum):
    """How an item's numbers are printed."""

    JSON = "float"
    BASE64 = "base64"
    RAW = "raw"


class OutputType(enum.StrEnum):
    """Type of an item's numbers; binary kinds pack eight dimensions in a byte, MSB first, bit = 1 where x ≥ 0."""

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
        timings_s: seconds by stage: ``tokenize``, ``queue``, ``encode``, ``pool``, ``total``.
    """

    model: str
    pooling: PoolingType
    fingerprint: str
    pieces: list[bytes]
    shapes: list[tuple[int, ...]]
    tokens: list[int]
    cut_tokens: list[int]
    timings_s: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class TokenizeCall:
    """A request for the ids of a text."""

    content: Input
    model: str | None = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False

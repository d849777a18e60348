"""Answers' bytes → numbers: base64 and ``.npy`` vectors, scores, labels."""

from __future__ import annotations

import binascii
import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import numpy as np
import orjson

from cluster.client.answers import Token
from cluster.client.errors import UnexpectedAnswer
from cluster.types import Float32

Result = TypeVar("Result")

OCTET_STREAM = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Vectors:
    """The rows of one answer, and how many tokens each item had."""

    rows: list[Float32]
    tokens: list[int]
    truncated_tokens: int


def read_vectors(response: httpx.Response, items: int) -> Vectors:
    """Return the vectors of an answer of ``/v1/embeddings``, in the order of the request.

    Raises:
        UnexpectedAnswer: it does not hold ``items`` vectors.
    """
    if response.headers.get("content-type", "").startswith(OCTET_STREAM):
        return _reading(response, lambda: _npy_vectors(response, items))
    return _reading(response, lambda: _json_vectors(response, items))


def read_scores(response: httpx.Response, items: int) -> tuple[list[tuple[int, float]], dict[str, Any]]:
    """Return (position in the request, score) of each result of ``/v1/rerank``, and the rest of the answer.

    Raises:
        UnexpectedAnswer: a result is malformed or points at no document.
    """

    def read() -> tuple[list[tuple[int, float]], dict[str, Any]]:
        body = read_object(response)
        pairs = [(int(result["index"]), float(result["relevance_score"])) for result in body.pop("results")]
        if any(not 0 <= position < items for position, _ in pairs):
            raise ValueError(f"a result's index is outside 0 to {items - 1}")
        return pairs, body

    return _reading(response, read)


def read_labels(response: httpx.Response, items: int) -> tuple[list[str], list[list[float]], str, dict[str, Any]]:
    """Return labels, rows of scores and the scores' name of an answer of ``/v1/classify``, and the rest of the answer.

    Raises:
        UnexpectedAnswer: it does not hold ``items`` labels.
    """

    def read() -> tuple[list[str], list[list[float]], str, dict[str, Any]]:
        body = read_object(response)
        data = _in_request_order(body.pop("data"), items)
        kind = "probs" if "probs" in data[0] else "scores"
        rows = [[float(score) for score in entry[kind]] for entry in data]
        if len({len(row) for row in rows}) != 1:
            raise ValueError(f"the items' {kind} differ in number")
        return [str(entry["label"]) for entry in data], rows, kind, body

    return _reading(response, read)


def read_tokens(response: httpx.Response) -> list[Token]:
    """Return the tokens of an answer of ``/tokenize`` with pieces.

    Raises:
        UnexpectedAnswer: it holds no tokens with pieces.
    """

    def read() -> list[Token]:
        listed = [(int(token["id"]), token["piece"]) for token in read_object(response)["tokens"]]
        return [
            Token(token_id, piece.encode("utf-8") if isinstance(piece, str) else bytes(piece))
            for token_id, piece in listed
        ]

    return _reading(response, read)


def read_member(response: httpx.Response, name: str, kind: type[Result]) -> Result:
    """Return one member of an answer that is a JSON object.

    Raises:
        UnexpectedAnswer: it is missing or of another type.
    """

    def read() -> Result:
        value = read_object(response)[name]
        if not isinstance(value, kind):
            raise TypeError(f"{name} is of type {type(value).__name__}")
        return value

    return _reading(response, read)


def read_object(response: httpx.Response) -> dict[str, Any]:
    """Return an answer's JSON object.

    Raises:
        UnexpectedAnswer: the answer is something else.
    """
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise _unexpected(response, error) from error
    if not isinstance(body, dict):
        raise _unexpected(response, f"a JSON object was expected and a {type(body).__name__} came")
    return body


def _reading(response: httpx.Response, read: Callable[[], Result]) -> Result:
    try:
        return read()
    except KeyError as error:
        raise _unexpected(response, f"it has no member {error}") from error
    except (ValueError, TypeError, AttributeError, IndexError, EOFError) as error:
        raise _unexpected(response, error) from error


def _unexpected(response: httpx.Response, why: object) -> UnexpectedAnswer:
    shown = " ".join(response.content[:120].decode("utf-8", "replace").split())
    return UnexpectedAnswer(
        f"the answer of {response.request.url} cannot be read: {why}; check that base_url is a Poolhouse server of this "
        f"version. It begins: {shown!r}"
    )


def _in_request_order(data: list[dict[str, Any]], items: int) -> list[dict[str, Any]]:
    placed = {int(entry["index"]): entry for entry in data}
    if len(data) != items or set(placed) != set(range(items)):
        raise ValueError(f"{items} items were sent and {len(placed)} came back")
    return [placed[index] for index in range(items)]


def _json_vectors(response: httpx.Response, items: int) -> Vectors:
    data = _in_request_order(read_object(response)["data"], items)
    rows = [_row(entry) for entry in data]
    if len({(row.ndim, row.shape[-1]) for row in rows}) != 1:
        raise ValueError("the vectors differ in width")
    return Vectors(
        rows=rows,
        tokens=[int(entry.get("tokens", 0)) for entry in data],
        truncated_tokens=sum(int(entry.get("truncated_tokens", 0)) for entry in data),
    )


def _row(entry: dict[str, Any]) -> Float32:
    printed = entry["embedding"]
    if isinstance(printed, str):
        values = np.frombuffer(binascii.a2b_base64(printed), dtype="<f4")
        # A copy, since an array on the answer's bytes cannot be written to.
        row = values.reshape(entry.get("shape", (-1,))).astype(np.float32, copy=True)
    else:
        row = np.asarray(printed, dtype=np.float32)
    if row.ndim not in (1, 2):
        raise ValueError(f"a vector has the shape {row.shape}")
    return row


def _npy_vectors(response: httpx.Response, items: int) -> Vectors:
    """Read the four arrays that stand one behind the other: rows, offsets, tokens and truncated tokens."""
    content = io.BytesIO(response.content)
    table, offsets, tokens, truncated = (np.load(content, allow_pickle=False) for _ in range(4))
    if table.ndim != 2 or offsets.shape != (items + 1,) or offsets[0] != 0 or offsets[-1] != len(table):
        raise ValueError(f"{items} items were sent and {len(offsets) - 1} came back in an array of shape {table.shape}")
    if (np.diff(offsets) < 0).any():
        raise ValueError("the row numbers fall")
    if tokens.shape != (items,) or truncated.shape != (items,):
        raise ValueError(f"{items} items were sent and {len(tokens)} counts of tokens came back")
    table = table.astype(np.float32, copy=False)
    return Vectors(
        rows=[table[begin:end] for begin, end in itertools.pairwise(offsets.tolist())],
        tokens=tokens.tolist(),
        truncated_tokens=int(truncated.sum()),
    )

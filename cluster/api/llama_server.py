"""llama-server's own shapes: ``/embedding``, ``/embeddings``, ``/tokenize``, ``/detokenize``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from cluster.api.body import Fields, describe
from cluster.api.inputs import is_part
from cluster.api.openai import parse_embeddings
from cluster.api.responses import Piece
from cluster.calls import EmbedAnswer, EmbedCall, Input, TokenizeCall
from cluster.config import Limits
from cluster.errors import InvalidRequest


def parse_v1_embeddings(
    body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits
) -> tuple[bool, EmbedCall, list[str]]:
    """Read OpenAI's body, or llama-server's where it has ``content`` and no ``input``; the first member says which it was.

    Raises:
        InvalidRequest: a field has a wrong type or value.
    """
    native = body.get("content") is not None and body.get("input") is None
    return native, *(parse_native if native else parse_embeddings)(body, headers, limits)


def parse_embedding(
    body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits
) -> tuple[bool, EmbedCall, list[str]]:
    """Read llama-server's body, or OpenAI's where it is that; raises as ``parse_v1_embeddings``."""
    # Real clients post OpenAI's body here, and only OpenAI's body names a model; OpenAI's shape has no token matrices.
    native = body.get("model") is None or body.get("pooling") == "none" or body.get("content") is not None
    return native, *(parse_native if native else parse_embeddings)(body, headers, limits)


def parse_native(body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits) -> tuple[EmbedCall, list[str]]:
    """Read ``{"content" | "input": …}``; special-token text in it is parsed, as llama-server does.

    Raises:
        InvalidRequest: a field has a wrong type or value.
    """
    field = "content" if body.get("content") is not None else "input"
    call, unknown = parse_embeddings(body, headers, limits, input_field=field)
    if call.parse_special is None:
        call.parse_special = True
    call.options.nested = True
    return call, unknown


def format_native(answer: EmbedAnswer, base64: bool) -> list[Piece]:
    """Print the bare list, in pieces; ``embedding`` is two-dimensional for every pooling type."""
    out: list[Piece] = []
    quote = b'"' if base64 else b""
    for index, piece in enumerate(answer.pieces):
        out.append(b'%s{"index":%d,"embedding":%s' % (b"," if index else b"[", index, quote))
        out.append(piece)
        out.append(b'%s,"tokens":%d,"truncated_tokens":%d}' % (quote, answer.tokens[index], answer.cut_tokens[index]))
    out.append(b"]")
    return out


def parse_tokenize(
    body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits
) -> tuple[TokenizeCall, list[str]]:
    """Read ``{"content", "add_special": false, "parse_special": true, "with_pieces": false}``.

    Raises:
        InvalidRequest: a field has a wrong type or value.
    """
    fields = Fields(body)
    call = TokenizeCall(
        content=_content(fields.raw("content")),
        model=fields.text("model"),
        add_special=fields.flag("add_special") or False,
        parse_special=fields.flag("parse_special") is not False,
        with_pieces=fields.flag("with_pieces") or False,
    )
    return call, fields.unknown()


def _content(value: Any) -> Input:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        for part in value:
            if not is_part(part):
                raise InvalidRequest(f"content has {describe(part)}; send strings and token ids only", "content")
        return value
    raise InvalidRequest(f"content is {describe(value)}; send a string or a list of strings and token ids", "content")


def format_tokenize(call: TokenizeCall, tokens: list[tuple[int, bytes]]) -> bytes:
    """Print ``{"tokens": […]}``; a piece that is not UTF-8 is a list of its bytes."""
    if not call.with_pieces:
        return orjson.dumps({"tokens": [token_id for token_id, _ in tokens]})
    return orjson.dumps({"tokens": [{"id": token_id, "piece": _piece(piece)} for token_id, piece in tokens]})


def _piece(piece: bytes) -> str | list[int]:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return list(piece)


def parse_detokenize(
    body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits
) -> tuple[str | None, list[int], list[str]]:
    """Read ``{"tokens": […]}``; returns model, ids and the ignored fields.

    Raises:
        InvalidRequest: ``tokens`` is not a list of token ids.
    """
    fields = Fields(body)
    model = fields.text("model")
    ids = fields.raw("tokens")
    if not isinstance(ids, list):
        raise InvalidRequest(f"tokens is {describe(ids)}; send a list of token ids", "tokens")
    for token in ids:
        if isinstance(token, str) or not is_part(token):
            raise InvalidRequest(f"tokens has {describe(token)}, which is no token id; send token ids only", "tokens")
    return model, ids, fields.unknown()

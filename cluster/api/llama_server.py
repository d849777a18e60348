"""llama-server's own shapes: ``/embedding``, ``/embeddings``, ``/tokenize``, ``/detokenize``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from cluster.api.body import Fields, describe
from cluster.api.inputs import is_part, of_few_parts
from cluster.api.openai import parse_embeddings, parse_timeout_s
from cluster.api.responses import Piece
from cluster.calls import DetokenizeCall, EmbedAnswer, EmbedCall, Input, TokenizeCall
from cluster.config import Limits
from cluster.errors import InvalidRequest
from cluster.tokenization import ShownTokens

# A thread that prints holds the interpreter's lock for so many ids or characters at most.
_PRINTED_AT_ONCE = 65_536


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
        PayloadTooLarge: texts and token ids are mixed in more parts than a request may have items.
    """
    fields = Fields(body)
    call = TokenizeCall(
        content=_content(fields.raw("content"), limits),
        model=fields.text("model"),
        add_special=fields.flag("add_special") or False,
        parse_special=fields.flag("parse_special") is not False,
        with_pieces=fields.flag("with_pieces") or False,
        timeout_s=parse_timeout_s(fields, headers),
    )
    return call, fields.unknown()


def _content(value: Any, limits: Limits) -> Input:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        for part in value:
            if not is_part(part):
                raise InvalidRequest(f"content has {describe(part)}; send strings and token ids only", "content")
        return of_few_parts([value], "content", limits.max_items)[0]
    raise InvalidRequest(f"content is {describe(value)}; send a string or a list of strings and token ids", "content")


def format_tokenize(shown: ShownTokens, with_pieces: bool) -> bytes:
    """Print ``{"tokens": […]}``; a piece that is not UTF-8 is a list of its bytes."""
    printed = [
        b'{"id":%d,"piece":%s}' % (token_id, orjson.dumps(_piece(piece)))
        for token_id, piece in zip(shown.distinct.tolist(), shown.pieces, strict=True)
    ]
    parts: list[bytes] = []
    for begin in range(0, len(shown.ids), _PRINTED_AT_ONCE):
        ids = shown.ids[begin : begin + _PRINTED_AT_ONCE]
        if with_pieces:
            parts.append(b",".join([printed[place] for place in np.searchsorted(shown.distinct, ids).tolist()]))
        else:
            parts.append(orjson.dumps(ids, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
    return b'{"tokens":[' + b",".join(parts) + b"]}"


def _piece(piece: bytes) -> str | list[int]:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return list(piece)


def parse_detokenize(
    body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits
) -> tuple[DetokenizeCall, list[str]]:
    """Read ``{"tokens": […]}``; returns the call and the ignored fields.

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
    call = DetokenizeCall(np.asarray(ids, dtype=np.int32), model, parse_timeout_s(fields, headers))
    return call, fields.unknown()


def format_detokenize(text: str) -> bytes:
    """Print ``{"content": …}``."""
    parts = [orjson.dumps(text[at : at + _PRINTED_AT_ONCE])[1:-1] for at in range(0, len(text), _PRINTED_AT_ONCE)]
    return b'{"content":"' + b"".join(parts) + b'"}'

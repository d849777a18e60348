"""OpenAI's ``POST /v1/embeddings``, with Poolhouse's own fields beside OpenAI's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from cluster.api.body import Fields, describe
from cluster.api.foreign import refuse_foreign
from cluster.api.inputs import is_list_of_inputs, parse_inputs
from cluster.api.responses import Piece
from cluster.calls import AnswerOptions, EmbedAnswer, EmbedCall, Encoding, OutputType
from cluster.config import Limits, Truncate
from cluster.errors import InvalidRequest
from cluster.types import Lane, PoolingType

OCTET_STREAM = "application/octet-stream"


def parse_embeddings(
    body: Mapping[str, Any], headers: Mapping[str, str], limits: Limits, *, input_field: str = "input"
) -> tuple[EmbedCall, list[str]]:
    """Return the call, and the names of the fields that were ignored.

    Raises:
        InvalidRequest: a field has a wrong type or value.
        PayloadTooLarge: more items than the limit.
    """
    fields = Fields(body)
    fields.ignore("user", "input", "content")
    refuse_foreign(fields)
    encoding = fields.choice("encoding_format", Encoding, without=Encoding.RAW)
    if headers.get("accept", "").lower().startswith(OCTET_STREAM):
        encoding = Encoding.RAW
    by_name = fields.text("prompt_name")
    by_type = fields.text("input_type")
    call = EmbedCall(
        inputs=parse_inputs(fields.raw(input_field), input_field, limits.max_items),
        model=fields.text("model"),
        pooling=fields.choice("pooling", PoolingType),
        truncate=parse_truncate(fields),
        prompt_name=by_name or by_type,
        prompt_param="prompt_name" if by_name else "input_type",
        parse_special=fields.flag("parse_special"),
        lane=fields.choice("lane", Lane),
        timeout_s=parse_timeout_s(fields, headers),
        options=AnswerOptions(
            normalize=_normalize(fields),
            dimensions=fields.integer("dimensions", 1),
            encoding=encoding or Encoding.JSON,
            output_type=fields.choice("output_dtype", OutputType) or OutputType.FLOAT,
        ),
        param=input_field,
        listed=is_list_of_inputs(fields.raw(input_field)),
    )
    return call, fields.unknown()


def _normalize(fields: Fields) -> float | None:
    p = fields.number("embd_normalize", -1, 1000)
    if p is not None and p < 1 and p not in (-1.0, 0.0):
        raise InvalidRequest(
            f"embd_normalize is {p:g}; send -1 (none), 0 (max-absolute), 1 (taxicab), 2 (Euclidean) or a larger p",
            "embd_normalize",
        )
    return p


def parse_truncate(fields: Fields) -> Truncate | None:
    """Return ``truncate``: one of the words, or true for ``end`` and false for ``none``."""
    value = fields.raw("truncate")
    if isinstance(value, bool):
        return Truncate.END if value else Truncate.NONE
    return fields.choice("truncate", Truncate)


def parse_timeout_s(fields: Fields, headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the client waits: the field ``timeout_s``, else the header ``x-request-timeout-s``."""
    given = fields.number("timeout_s", 0.001, 86_400)
    header = headers.get("x-request-timeout-s")
    if given is not None or header is None:
        return given
    try:
        seconds = float(header)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86_400:
        raise InvalidRequest(
            f"the header x-request-timeout-s is {describe(header)}; send seconds", "x-request-timeout-s"
        )
    return seconds


def format_embeddings(answer: EmbedAnswer, options: AnswerOptions) -> list[Piece]:
    """Print the answer in OpenAI's shape, in pieces: the items' printed numbers, and what is between them."""
    base64 = options.encoding is Encoding.BASE64
    quote = b'"' if base64 else b""
    shape = b""
    out: list[Piece] = []
    for index, piece in enumerate(answer.pieces):
        before = b"," if index else b'{"object":"list","data":['
        out.append(b'%s{"object":"embedding","index":%d,"embedding":%s' % (before, index, quote))
        out.append(piece)
        if base64:
            printed = ",".join(map(str, _printed_shape(answer.shapes[index], options.output_type))).encode()
            shape = b',"encoding_format":"base64","shape":[%s]' % printed
        tokens, cut = answer.tokens[index], answer.cut_tokens[index]
        out.append(b'%s%s,"tokens":%d,"truncated_tokens":%d}' % (quote, shape, tokens, cut))
    total = sum(answer.tokens)
    tail = {
        "model": answer.model,
        "usage": {"prompt_tokens": total, "total_tokens": total},
        "pooling": answer.pooling,
        "fingerprint": answer.fingerprint,
    }
    out.append(b"]," + orjson.dumps(tail)[1:])
    return out


def _printed_shape(shape: tuple[int, ...], output_type: OutputType) -> tuple[int, ...]:
    packed = output_type in (OutputType.BINARY, OutputType.UBINARY)
    return (*shape[:-1], (shape[-1] + 7) // 8) if packed else shape

"""How large an answer will be, known from its tokens before any of it is computed."""

from __future__ import annotations

from cluster.calls import AnswerOptions, Encoding, OutputType
from cluster.config import Limits
from cluster.errors import PayloadTooLarge

# Printed with a comma, a few digits more than the mean of normalised vectors.
_PRINTED_BYTES = {
    OutputType.FLOAT: 13,
    OutputType.INT8: 5,
    OutputType.UINT8: 4,
    OutputType.BINARY: 5,
    OutputType.UBINARY: 4,
}
_MEMBERS_BYTES = 128
_FLOAT_BYTES = 4


def numbers_bytes(rows: int, width: int) -> int:
    """The size of an answer's numbers as they are computed, float32 ``[rows, width]``."""
    return rows * width * _FLOAT_BYTES


def printed_bytes(options: AnswerOptions, items: int, rows: int, width: int) -> int:
    """The size of an answer as it is printed, about and rather too large than too small.

    Args:
        rows: of all items together.
        width: of a row before it is cut.
    """
    width = min(width, options.dimensions or width)
    if options.output_type in (OutputType.BINARY, OutputType.UBINARY):
        width = (width + 7) // 8
    raw = rows * width * (_FLOAT_BYTES if options.output_type is OutputType.FLOAT else 1)
    if options.encoding is Encoding.RAW:
        return raw + items * 3 * 8
    if options.encoding is Encoding.BASE64:
        return raw * 4 // 3 + items * _MEMBERS_BYTES
    return rows * width * _PRINTED_BYTES[options.output_type] + items * _MEMBERS_BYTES


def check_printed(size_bytes: int, limits: Limits, param: str) -> None:
    """Check the size of an answer that has one form only.

    Raises:
        PayloadTooLarge: it is above the limit.
    """
    if size_bytes > limits.max_answer_bytes:
        raise PayloadTooLarge(
            f"the answer would have about {size_bytes} bytes and the limit is {limits.max_answer_bytes} "
            "(limits.max_answer_bytes); send less at once",
            param,
        )


def check_answer(options: AnswerOptions, items: int, rows: int, width: int, limits: Limits, param: str) -> int:
    """Return the bytes that an answer needs in memory: its numbers, and what they are printed as.

    Raises:
        PayloadTooLarge: one of the two is above the limit.
    """
    limit = limits.max_answer_bytes
    numbers, printed = numbers_bytes(rows, width), printed_bytes(options, items, rows, width)
    if numbers > limit:
        raise PayloadTooLarge(
            f"the answer's numbers would have {numbers} bytes before they are cut and printed, and the limit is {limit} "
            "(limits.max_answer_bytes); send fewer or shorter inputs at once",
            param,
        )
    if printed > limit:
        raw = printed_bytes(
            AnswerOptions(dimensions=options.dimensions, output_type=options.output_type, encoding=Encoding.RAW),
            items,
            rows,
            width,
        )
        binary = f"ask with accept: application/octet-stream for binary output, which has {raw} bytes, or "
        raise PayloadTooLarge(
            f"the answer would have about {printed} bytes and the limit is {limit} (limits.max_answer_bytes); "
            f"{binary if raw <= limit else ''}send fewer or shorter inputs at once",
            param,
        )
    return numbers + printed

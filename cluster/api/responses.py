"""Answers on their way out: written piece by piece as the client reads, and accounted for until the last byte is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cluster.api.transfers import Transfer, Transfers
from cluster.config import Limits
from cluster.errors import RequestTimeout
from cluster.telemetry.metrics import REFUSALS

logger = logging.getLogger("poolhouse")

Piece = bytes | bytearray

# As much as the server buffers for a connection; each waits until most of the last one has gone.
_PIECE_BYTES = 65_536

_ANSWERS_AT_ONCE = 4
"""Of the largest size; almost all are smaller, so that thousands are written at once."""

# Sockets and proxies hold megabytes, and take more only when a good part of that is gone.
_STALLS = 6


class Answers:
    """Bounds what all answers have in memory, from before they are computed until they have been read."""

    def __init__(self, limits: Limits) -> None:
        most_bytes = _ANSWERS_AT_ONCE * limits.max_answer_bytes
        self._transfers = Transfers("answers", limits, most_bytes, _STALLS * limits.stall_s)

    @property
    def held_bytes(self) -> int:
        """What all have in memory now."""
        return self._transfers.held_bytes

    def room(self) -> Room:
        """Return the room of one answer; it is empty yet."""
        return Room(self._transfers)


class Room:
    """What one answer has in memory. It is given back with the response's last byte, or by ``close``."""

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers
        self._transfer: Transfer | None = None

    def take(self, size_bytes: int) -> None:
        """Set the size; answers of one piece are not worth an account.

        Raises:
            Overloaded: there is no room for it.
        """
        if size_bytes <= _PIECE_BYTES:
            return
        self._transfer = self._transfer or self._transfers.open()
        self._transfers.hold(self._transfer, size_bytes)

    def respond(self, pieces: Sequence[Piece], headers: Mapping[str, str], media_type: str) -> Response:
        """Return an answer of these pieces, one behind the other."""
        if sum(map(len, pieces)) <= _PIECE_BYTES:
            self.close()
            return Response(b"".join(pieces), headers=headers, media_type=media_type)
        return _LongResponse(list(pieces), headers, media_type, self)

    def close(self) -> None:
        """Give the room back."""
        if self._transfer is not None:
            self._transfers.close(self._transfer)
            self._transfer = None

    def write(self, size_bytes: int) -> Transfer:
        """Begin to write ``size_bytes``; the client's pace counts from now on."""
        self._transfer = self._transfer or self._transfers.open()
        self._transfer.task = asyncio.current_task()
        # Its numbers are gone, so that this is no more than was taken.
        self._transfer.held_bytes = size_bytes
        self._transfer.begin()
        return self._transfer


class _LongResponse(Response):
    def __init__(self, pieces: list[Piece], headers: Mapping[str, str], media_type: str, room: Room) -> None:
        self._pieces = pieces
        self._size_bytes = sum(map(len, pieces))
        self._room = room
        super().__init__(headers={**headers, "content-length": str(self._size_bytes)}, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transfer = self._room.write(self._size_bytes)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for part in _parts(self._pieces):
                await send({"type": "http.response.body", "body": part, "more_body": True})
                transfer.moved(len(part))
                transfer.held_bytes -= len(part)
            transfer.moving = False
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError as cancelled:
            cause = transfer.cause(cancelled)
            if not isinstance(cause, RequestTimeout):
                raise
            # Without its end, the server closes the connection, and the client sees that the answer is not whole.
            logger.info("an answer of %d bytes was cut off: %s", self._size_bytes, cause.message)
            REFUSALS.labels(scope["path"], "slow_reader").inc()
        finally:
            self._pieces.clear()
            self._room.close()


def gathered(pieces: list[Piece]) -> list[Piece]:
    """Join small pieces to larger ones; ``pieces`` is empty afterwards. For a thread, where there are very many."""
    return list(_parts(pieces, cut=False))


def _parts(pieces: list[Piece], *, cut: bool = True) -> Iterator[Piece]:
    """Yield the bytes of ``pieces`` in parts of about ``_PIECE_BYTES``, and let go of each piece that has been yielded.

    Args:
        cut: larger pieces, too.
    """
    pieces.reverse()
    small: list[Piece] = []
    size = 0
    while pieces:
        piece = pieces.pop()
        if len(piece) < _PIECE_BYTES:
            small.append(piece)
            size += len(piece)
            if size < _PIECE_BYTES:
                continue
        if small:
            yield b"".join(small)
            small, size = [], 0
        if len(piece) < _PIECE_BYTES:
            continue
        if not cut:
            yield piece
            continue
        view = memoryview(piece)
        for begin in range(0, len(piece), _PIECE_BYTES):
            yield bytes(view[begin : begin + _PIECE_BYTES])
    if small:
        yield b"".join(small)

"""Bodies → calls. A large body is parsed in a process of its own, since one call of a JSON parser keeps the interpreter's lock.

What comes back is packed: texts as one array of bytes and token ids as one array of integers, which this process takes apart
item by item. Token ids of such a body stay arrays.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import resource
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from cluster.api.body import read_json
from cluster.config import Limits
from cluster.errors import PayloadTooLarge, PoolhouseError, ReplicaLost
from cluster.offload import Offload
from cluster.types import Int32, Int64, UInt8, offsets_of

Parsed = TypeVar("Parsed")
Parse = Callable[[Mapping[str, Any], Mapping[str, str], Limits], Parsed]
"""A dialect: body, headers and limits → what its handler works with."""

INLINE_BODY_BYTES = 32_768
"""Whatever is in it, so much is parsed and checked within a few milliseconds."""

_PROCESSES = 2
_PARSING_S_PER_BYTE = 2e-8

# A list of empty lists takes forty times its text.
_MEMORY_PER_BODY_BYTE = 48
_OWN_MEMORY_BYTES = 2**31

_HEAD = struct.Struct("<QQ")


def parse_body(
    raw: bytes, content_type: str | None, parse: Parse[Parsed], headers: Mapping[str, str], limits: Limits
) -> Parsed:
    """Parse a body here; raises as ``read_json`` and ``parse``."""
    return parse(read_json(raw, content_type, limits), headers, limits)


class Parsers:
    """Processes that parse large bodies, started when they are needed; they end with this object."""

    def __init__(self) -> None:
        self._offload = Offload(_PROCESSES)
        self._idle: list[_Parser] = []
        weakref.finalize(self, _end, self._idle, self._offload)

    async def parse(
        self,
        parts: list[bytes],
        let_go: Callable[[], None],
        content_type: str | None,
        parse: Parse[Parsed],
        headers: Mapping[str, str],
        limits: Limits,
    ) -> Parsed:
        """Parse a body that came in ``parts``; raises as ``parse_body``.

        Args:
            let_go: called when no thread has the body any more.
        """
        cost_s = _PARSING_S_PER_BYTE * sum(map(len, parts))
        work = partial(_parse, self._idle, parts, (content_type, parse, headers, limits))
        result: Parsed = await self._offload.run_held(cost_s, let_go, work)
        return result


def _end(idle: list[_Parser], offload: Offload) -> None:
    offload.close()
    for parser in idle:
        parser.close()
    idle.clear()


def _parse(idle: list[_Parser], parts: list[bytes], task: tuple[Any, ...]) -> Any:
    parser = _idle_one(idle) or _Parser()
    try:
        answer = parser.ask(parts, task)
    except (OSError, EOFError) as error:
        parser.close()
        raise ReplicaLost(
            "the process that read this body has ended, perhaps for want of memory; send it again, or in parts"
        ) from error
    except BaseException:
        parser.close()
        raise
    idle.append(parser)
    parts.clear()
    if isinstance(answer, PoolhouseError):
        raise answer
    return unpacked(answer)


def _idle_one(idle: list[_Parser]) -> _Parser | None:
    # Another thread may take the last one at any time, and a process may have been killed since its last body.
    while True:
        try:
            parser = idle.pop()
        except IndexError:
            return None
        if parser.runs:
            return parser
        parser.close()


class _Parser:
    """One process, and this end of its socket."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cluster.api.parsing", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Its arithmetic is none; threads of a library would only take memory.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )

    @property
    def runs(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def ask(self, parts: Sequence[bytes], task: tuple[Any, ...]) -> Any:
        """Send a body and what to do with it, and return the packed answer or an error.

        Raises:
            OSError, EOFError: the process has ended.
        """
        _send(self._socket, task, parts)
        return _receive(self._socket)[0]

    def close(self) -> None:
        """End the process and wait for it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _send(connection: socket.socket, value: object, buffers: Sequence[bytes | memoryview] = ()) -> None:
    """Send a value and, behind it, bytes that are not copied; arrays in the value travel there, too."""
    own: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=own.append)
    views = [*(buffer.raw() for buffer in own), *(memoryview(buffer) for buffer in buffers)]
    sizes = struct.pack(f"<{len(own)}Q", *(view.nbytes for view in views[: len(own)]))
    rest = sum(view.nbytes for view in views[len(own) :])
    connection.sendall(_HEAD.pack(len(head), len(own)) + struct.pack("<Q", rest) + sizes + head)
    for view in views:
        connection.sendall(view)


def _receive(connection: socket.socket) -> tuple[Any, memoryview]:
    """Return a value and the bytes that came behind it.

    Raises:
        EOFError: the other end has closed.
    """
    head_bytes, count = _HEAD.unpack(_read(connection, _HEAD.size))
    (rest,) = struct.unpack("<Q", _read(connection, 8))
    sizes = struct.unpack(f"<{count}Q", _read(connection, 8 * count))
    head = _read(connection, head_bytes)
    return pickle.loads(head, buffers=[_read(connection, size) for size in sizes]), _read(connection, rest)


def _read(connection: socket.socket, size: int) -> memoryview:
    # Not a bytearray: NumPy's memory is not set to zero first.
    whole = np.empty(size, dtype=np.uint8).data
    done = 0
    while done < size:
        received = connection.recv_into(whole[done:])
        if not received:
            raise EOFError
        done += received
    return whole


@dataclass(frozen=True, slots=True)
class _Packed:
    """A list of inputs.

    Attributes:
        kinds: uint8 ``[n]``: a text, token ids, a pair of texts, or something else.
        texts, text_offsets: UTF-8 of all texts, one behind the other, and int64 offsets into it.
        ids, id_offsets: int32 token ids of all sequences, and int64 offsets into them.
        others: what is neither, as it is.
    """

    kinds: UInt8
    texts: UInt8
    text_offsets: Int64
    ids: Int32
    id_offsets: Int64
    others: list[Any]


_TEXT, _IDS, _PAIR, _OTHER = range(4)


def packed(value: Any) -> Any:
    """Replace the lists in a parsed call, in its tuples and in its data classes by arrays."""
    if is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: new for field in fields(value) if (new := packed(old := getattr(value, field.name))) is not old
        }
        return replace(value, **changed) if changed else value
    if isinstance(value, tuple):
        return tuple(packed(member) for member in value)
    if isinstance(value, list):
        return _ids(value) if _are_ids(value) else _packed_list(value)
    return value


def _are_ids(value: list[Any]) -> bool:
    return bool(value) and set(map(type, value)) == {int}


def _ids(value: list[int]) -> Int32:
    return np.asarray(value, dtype=np.int64).astype(np.int32)


def _packed_list(items: list[Any]) -> _Packed:
    kinds = np.full(len(items), _OTHER, dtype=np.uint8)
    texts: list[bytes] = []
    ids: list[Int32] = []
    others: list[Any] = []
    for index, item in enumerate(items):
        if isinstance(item, str):
            kinds[index] = _TEXT
            texts.append(item.encode())
        elif isinstance(item, tuple) and len(item) == 2 and all(isinstance(text, str) for text in item):
            kinds[index] = _PAIR
            texts.extend(text.encode() for text in item)
        elif isinstance(item, list) and _are_ids(item):
            kinds[index] = _IDS
            ids.append(_ids(item))
        else:
            others.append(item)
    return _Packed(
        kinds,
        np.frombuffer(b"".join(texts), dtype=np.uint8),
        offsets_of([len(text) for text in texts]),
        np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
        offsets_of([len(item) for item in ids]),
        others,
    )


def unpacked(value: Any) -> Any:
    """Undo ``packed``, but for token ids, which stay arrays."""
    if isinstance(value, _Packed):
        return _unpacked_list(value)
    if isinstance(value, tuple):
        return tuple(map(unpacked, value))
    if is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: new
            for field in fields(value)
            if (new := unpacked(old := getattr(value, field.name))) is not old
        }
        return replace(value, **changed) if changed else value
    return value


def _unpacked_list(value: _Packed) -> list[Any]:
    view = value.texts.data
    bounds, id_bounds = value.text_offsets.tolist(), value.id_offsets.tolist()
    texts = (str(view[bounds[i] : bounds[i + 1]], "utf-8") for i in range(len(bounds) - 1))
    ids = (value.ids[id_bounds[i] : id_bounds[i + 1]] for i in range(len(id_bounds) - 1))
    others = iter(value.others)
    items: list[Any] = []
    for kind in value.kinds.tolist():
        if kind == _TEXT:
            items.append(next(texts))
        elif kind == _IDS:
            items.append(next(ids))
        elif kind == _PAIR:
            items.append((next(texts), next(texts)))
        else:
            items.append(next(others))
    return items


def _answer(raw: memoryview, content_type: str | None, parse: Parse[Any], headers: Any, limits: Limits) -> Any:
    try:
        return packed(parse_body(raw.tobytes(), content_type, parse, headers, limits))
    except MemoryError:
        return PayloadTooLarge("the body has more values in it than the server has memory for; send it in parts")
    except PoolhouseError as error:
        # The other process raises it; what led here stays.
        return error.with_traceback(None)


def _limit_memory(most_bytes: int) -> None:
    """Let an allocation fail here before the machine has no memory left; Linux alone keeps to this."""
    if sys.platform == "linux":
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most_bytes = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, hard))


def main() -> None:
    """Be the process: one body after the other, until the socket closes."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    # Nothing here refers to itself, and a body makes millions of objects.
    gc.disable()
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            task, raw = _receive(connection)
            _limit_memory(_OWN_MEMORY_BYTES + _MEMORY_PER_BODY_BYTE * task[3].max_body_bytes)
            _send(connection, _answer(raw, *task))
            del task, raw


if __name__ == "__main__":
    # Under its own name, so that what is pickled here is known there.
    from cluster.api import parsing

    parsing.main()

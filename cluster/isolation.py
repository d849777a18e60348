"""Finds out which item of a message kills an encoder: each runs alone, in a child process that may die of it.

The child loads the encoder as a replica does, without Ray, and answers one item at a time over a pipe. It lives for one
message, and is started anew after each death.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import select
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from typing import IO, Any, cast

import numpy as np

from cluster.assembly import load_encoder
from cluster.config import parse_config
from cluster.errors import PoolhouseError, ReplicaLost
from cluster.poisons import poisonous
from cluster.types import TokenBatch, VectorBatch, offsets_of

logger = logging.getLogger("poolhouse")

# Loading may read a large file from a slow disk; an item alone is one micro-batch.
_LOAD_TIMEOUT_S = 300.0
_ITEM_TIMEOUT_S = 60.0

_LENGTH = struct.Struct("<Q")


class _ChildDied(Exception):  # it is no fault of this process
    """The child has ended, or was ended since it did not answer."""


class _Child:
    """A process that hosts one encoder."""

    def __init__(self, args: dict[str, Any], encoder: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cluster.isolation"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._send((args, encoder))
        self._receive(_LOAD_TIMEOUT_S)

    def encode(self, batch: TokenBatch) -> VectorBatch:
        """Encode a message of one item.

        Raises:
            _ChildDied: the item has ended the child, or was not encoded within a minute.
        """
        self._send(batch)
        answer = self._receive(_ITEM_TIMEOUT_S)
        assert isinstance(answer, VectorBatch)
        return answer

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # Closing flushes what the process never read.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin, value)
        except BrokenPipeError as error:
            self.close()
            raise _ChildDied from error

    def _receive(self, timeout_s: float) -> object:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        try:
            if readable:
                return _read(self._process.stdout)
        except EOFError:
            logger.warning("the isolated process ended with status %s", self._process.wait())
        self.close()
        raise _ChildDied


def encode_isolated(
    args: dict[str, Any], encoder: str, batch: TokenBatch, stop: threading.Event | None = None
) -> VectorBatch:
    """Encode every item of ``batch`` alone; those that end the process carry a PoisonousInput.

    Args:
        args: of the configuration, as in the YAML.
        encoder: name of the encoder whose message it is.
        stop: set from another thread when nobody waits any more; looked at before each item.

    Raises:
        ReplicaLost: the child does not even start, or the work was stopped.
    """
    child: _Child | None = None
    answers: list[VectorBatch] = []
    try:
        for item in range(len(batch)):
            if stop is not None and stop.is_set():
                raise ReplicaLost("nobody waits for this work any more; send it again")
            if item in batch.errors:
                answers.append(_failed(batch, batch.errors[item]))
                continue
            child = child or _start(args, encoder)
            try:
                answers.append(child.encode(batch.select([item])))
            except _ChildDied:
                logger.warning("an input of %d tokens has ended an isolated encoder", len(batch.ids(item)))
                answers.append(_failed(batch, poisonous()))
                child = None
    finally:
        if child is not None:
            child.close()
    # What the child says of its own speed and slots says nothing of the replica.
    return replace(VectorBatch.concatenate(answers), report=None)


def _start(args: dict[str, Any], encoder: str) -> _Child:
    try:
        return _Child(args, encoder)
    except _ChildDied as error:
        raise ReplicaLost(
            "an encoder died twice with this work and another one to try it alone does not start; send it again later"
        ) from error


def _failed(batch: TokenBatch, error: PoolhouseError) -> VectorBatch:
    return VectorBatch(
        fingerprint=batch.fingerprint,
        values=np.zeros(0, dtype=np.float32),
        offsets=offsets_of([0]),
        widths=np.ones(1, dtype=np.int32),
        errors={0: error},
    )


def _write(pipe: IO[bytes], value: object) -> None:
    frame = pickle.dumps(value)
    pipe.write(_LENGTH.pack(len(frame)) + frame)
    pipe.flush()


def _read(pipe: IO[bytes]) -> object:
    length = _LENGTH.unpack(_read_exactly(pipe, _LENGTH.size))[0]
    return pickle.loads(_read_exactly(pipe, length))


def _read_exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def main() -> None:
    """Be the child: read (args, encoder), then one message after the other, until the pipe closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What native code prints must not land between the frames.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests = sys.stdin.buffer
    args, name = cast("tuple[dict[str, Any], str]", _read(requests))
    encoder = load_encoder(parse_config(args), name)
    _write(answers, "ready")
    while True:
        try:
            batch = _read(requests)
        except EOFError:
            break
        assert isinstance(batch, TokenBatch)
        _write(answers, encoder.submit(batch).result())
    encoder.close()


if __name__ == "__main__":
    main()

"""A child process that hosts one encoder and answers messages over a pipe: both of its ends."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from typing import IO, Any, cast

import numpy as np

from cluster.assembly import KNOWN_TEXT, load_encoder, load_tokenizer
from cluster.config import parse_config
from cluster.errors import EngineError, PoolhouseError
from cluster.failures import Cause, cause_of_exit
from cluster.texts import TextBatch, TextOptions
from cluster.types import Int32, PoolingType, RequestFacts, TokenBatch, VectorBatch

logger = logging.getLogger("poolhouse")

# Loading may read a large file from a slow disk.
_LOAD_TIMEOUT_S = 300.0

# How soon a wait notices that nobody needs its end any more.
_LOOK_S = 0.2

# From the end of its pipe to the end of the process.
_END_S = 30.0

_COMMAND = (sys.executable, "-m", "cluster.isolated")
_LENGTH = struct.Struct("<Q")


class ChildEnded(Exception):  # it is no fault of this process
    """The child has ended; ``cause`` says how."""

    def __init__(self, status: int) -> None:
        super().__init__(signal.Signals(-status).name if status < 0 else f"status {status}")
        self.cause: Cause = cause_of_exit(status)


class ChildSlow(Exception):
    """The child has not answered in time."""


class Stopped(Exception):
    """Nobody waits for the child's answer any more."""


class Child:
    """The parent's end. It is closed after any error but one that the encoder itself raised.

    Attributes:
        known_ids: int32 ``[n]``, the tokens of a text that the encoder has encoded at its start.

    Raises:
        ChildEnded, ChildSlow, Stopped: it did not get as far as encoding.
    """

    def __init__(self, args: dict[str, Any], encoder: str, stop: threading.Event) -> None:
        self._process = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.known_ids = cast("Int32", self._ask((args, encoder), _LOAD_TIMEOUT_S, stop))

    def encode(self, batch: TokenBatch, within_s: float, stop: threading.Event) -> VectorBatch:
        """Encode a message.

        Raises:
            ChildEnded: it has ended with it, or before.
            ChildSlow: it took longer than ``within_s``.
            Stopped: ``stop`` was set.
            PoolhouseError: what the encoder says of the message.
        """
        answer = self._ask(batch, within_s, stop)
        if isinstance(answer, PoolhouseError):
            raise answer
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

    def _ask(self, question: object, within_s: float, stop: threading.Event) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _write(self._process.stdin, question)
            ends_s = time.monotonic() + within_s
            while not select.select([self._process.stdout], [], [], max(0.0, min(_LOOK_S, ends_s - time.monotonic())))[
                0
            ]:
                if stop.is_set():
                    raise Stopped
                if time.monotonic() >= ends_s:
                    raise ChildSlow
            return _read(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise ChildEnded(self._status()) from error
        except BaseException:
            self.close()
            raise

    def _status(self) -> int:
        """How the process ended; its pipe has."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self.close()
        return self._process.returncode


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
    config = parse_config(args)
    encoder = load_encoder(config, name)
    _write(answers, _known_ids(args, name))
    while True:
        try:
            batch = _read(requests)
        except EOFError:
            break
        assert isinstance(batch, TokenBatch)
        try:
            answer: object = encoder.submit(batch).result()
        except PoolhouseError as error:
            answer = error
        except Exception as error:
            logger.exception("an isolated message failed")
            # The input is answered with it; a child that ended here would look like one that was ended.
            answer = EngineError(f"the encoder failed: {type(error).__name__}: {error}")
        _write(answers, answer)
    encoder.close()


def _known_ids(args: dict[str, Any], name: str) -> Int32:
    config = parse_config(args)
    model = config.encoders[name].model
    tokenizer = load_tokenizer(config, [model])
    texts = TextBatch(model, [KNOWN_TEXT], [0], [TextOptions(PoolingType.NONE)], [RequestFacts("known text")])
    ids = np.array(tokenizer.tokenize(texts).token_ids)
    tokenizer.models[model].vocabulary.close()
    return ids


if __name__ == "__main__":
    main()

"""A deployment that cannot start says why on the terminal of ``serve run``, in plain words.

Serve's fast mode keeps logs off standard error, and the operator would see a server that never becomes ready. Ray carries
what a worker writes to its standard error to the terminal.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from cluster.errors import PoolhouseError

_STANDARD_ERROR = 2


@contextlib.contextmanager
def failures_told(what: str) -> Iterator[None]:
    """Name ``what`` and the cause on standard error when the block fails; the error goes on its way."""
    try:
        yield
    except Exception as error:
        cause = error.message if isinstance(error, PoolhouseError) else f"{type(error).__name__}: {error}"
        # The descriptor, since Serve sends sys.stderr to its log.
        os.write(_STANDARD_ERROR, f"poolhouse: {what} cannot start: {cause}\n".encode("utf-8", "replace"))
        raise

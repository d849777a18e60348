"""The user's cache directory: files appear in it whole or not at all, and two processes make one only once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.errors import ModelLoadError


def cache_directory() -> Path:
    """Return ``$POOLHOUSE_CACHE_DIR``, else ``poolhouse`` in the XDG cache directory; created where missing.

    Raises:
        ModelLoadError: it cannot be created.
    """
    configured = os.environ.get("POOLHOUSE_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(configured) if configured else Path(base) / "poolhouse"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelLoadError(
            f"the cache directory {directory} cannot be created ({error.strerror}); set POOLHOUSE_CACHE_DIR to a writable one"
        ) from error
    return directory


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock beside ``path``; it ends with the process, however that ends."""
    with (path.parent / f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_once(path: Path, make: Callable[[Path], None], needs_bytes: int) -> Path:
    """Return ``path``, made by ``make`` in a temporary directory beside it if it is not there yet.

    Args:
        make: writes the file to the path that it is given, which lies in a directory that vanishes afterwards.
        needs_bytes: free space that making it takes at most.

    Raises:
        ModelLoadError: the disk is too small or full, or cannot be written to; nothing is left behind.
    """
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path):
            if not path.exists():
                _remove_stale(path)
                _check_space(path, needs_bytes)
                _make(path, make)
    except OSError as error:
        # NumPy's writes fail without the system's reason.
        reason = error.strerror or f"{error} (is the disk full?)"
        raise ModelLoadError(
            f"{path.name} cannot be made in {path.parent}: {reason}; nothing was left behind"
        ) from error
    return path


def _check_space(path: Path, needs_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needs_bytes:
        raise ModelLoadError(
            f"{path.parent} has {free / 1e6:.0f} MB free and {path.name} needs {needs_bytes / 1e6:.0f} MB to be made; "
            "free some space or set POOLHOUSE_CACHE_DIR to another disk"
        )


def _make(path: Path, make: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.part-", dir=path.parent) as scratch:
        unfinished = Path(scratch) / path.name
        make(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)


def _remove_stale(path: Path) -> None:
    """Remove what a killed process left; the caller holds the lock, so nobody works on it."""
    for stale in path.parent.glob(f".{path.name}.part-*"):
        shutil.rmtree(stale, ignore_errors=True)

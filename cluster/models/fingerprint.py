"""What a vector's meaning depends on, as one short name: the GGUF, the engine and the settings that change vectors."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from cluster.config import ModelConfig
from cluster.errors import ModelLoadError
from cluster.models.cache import cache_directory, lock


def gguf_sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal; remembered by path, size and time of change.

    Raises:
        ModelLoadError: the file cannot be read.
    """
    try:
        facts = path.stat()
        key = f"{path.resolve()}:{facts.st_size}:{facts.st_mtime_ns}"
        try:
            return _remembered(key, path)
        except _LedgerUnusable:
            # The ledger only saves time: where the cache directory cannot be written to, the file is read each time.
            return _sha256(path)
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror or error}") from error


class _LedgerUnusable(Exception):
    """The ledger cannot be opened or locked."""


def _remembered(key: str, path: Path) -> str:
    with contextlib.ExitStack() as stack:
        try:
            ledger = cache_directory() / "sha256.json"
            stack.enter_context(lock(ledger))
        except (OSError, ModelLoadError) as error:
            raise _LedgerUnusable from error
        known = _read_ledger(ledger)
        if key not in known:
            known[key] = _sha256(path)
            fresh = ledger.with_suffix(".new")
            try:
                fresh.write_text(json.dumps(known, indent=0), encoding="utf-8")
                fresh.replace(ledger)
            except OSError:
                fresh.unlink(missing_ok=True)
        return known[key]


def _read_ledger(ledger: Path) -> dict[str, str]:
    try:
        known = json.loads(ledger.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Missing, or damaged: it is made anew.
        return {}
    return known if isinstance(known, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(sha256: str, model: ModelConfig, *, weights: str = "", engine: str = "llama") -> str:
    """Return 16 hexadecimal digits over the GGUF, what runs it, and every setting that changes vectors.

    The library's build and the machine are not in it: they move the last digits of a number, as the shape of a batch does.

    Args:
        weights: the types of its matrices (``cluster.models.inspect.weight_types``).
    """
    facts = [
        sha256,
        sorted(model.prompts.items()),
        model.append_eos,
        model.parse_special,
        model.token_types,
        weights,
        engine,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

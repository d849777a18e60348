"""What a vector's meaning depends on, as one short name: the GGUF and the settings that change vectors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cluster.config import ModelConfig
from cluster.models.cache import cache_directory, lock

_BLOCK_BYTES = 8 * 1024 * 1024


def gguf_sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal; remembered by path, size and time of change."""
    facts = path.stat()
    key = f"{path.resolve()}:{facts.st_size}:{facts.st_mtime_ns}"
    ledger = cache_directory() / "sha256.json"
    with lock(ledger):
        known: dict[str, str] = {}
        if ledger.exists():
            try:
                known = json.loads(ledger.read_text(encoding="utf-8"))
            except ValueError:
                # The ledger is a convenience: one that cannot be read is made anew.
                known = {}
        if key not in known:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
            known[key] = digest.hexdigest()
            fresh = ledger.with_suffix(".new")
            fresh.write_text(json.dumps(known, indent=0), encoding="utf-8")
            fresh.replace(ledger)
        return known[key]


def fingerprint(sha256: str, model: ModelConfig) -> str:
    """Return 16 hexadecimal digits over the GGUF and every setting that changes vectors."""
    facts = [sha256, sorted(model.prompts.items()), model.append_eos, model.parse_special]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

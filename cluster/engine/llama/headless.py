"""Chooses between a GGUF and its headless body: derives the body once, proves it once, and says so where it does not hold."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import llama_cpp

from cluster.errors import ModelLoadError
from cluster.failures import cause_of_exit
from cluster.models.body import BodyProof, body_path, derive_body, read_proof, remember_proof
from cluster.models.cache import lock
from cluster.models.fingerprint import gguf_sha256
from cluster.models.token_table import TokenTable

logger = logging.getLogger("poolhouse")

_PROOF_TIMEOUT_S = 1800.0


def headless_body(original: Path) -> tuple[Path, TokenTable] | None:
    """Return the body to load in the original's place and the table to look embeddings up in.

    None where the original must be run whole; the log says why.

    Raises:
        ModelLoadError: the original cannot be read.
    """
    sha256 = gguf_sha256(original)
    try:
        proof = read_proof(sha256, llama_cpp.__version__) or _prove_once(original, sha256)
        if proof.holds:
            return derive_body(original, sha256), TokenTable(original, proof.input_scale)
        reason = proof.reason
    except ModelLoadError as error:
        reason = error.message
    except OSError as error:
        reason = f"the cache directory cannot be written to: {error.strerror or error}"
    logger.warning("%s runs with its vocabulary's head, which costs time and memory: %s", original.name, reason)
    return None


def _prove_once(original: Path, sha256: str) -> BodyProof:
    """Derive and prove, unless another process did meanwhile."""
    path = body_path(sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path.with_suffix(".json")):
        known = read_proof(sha256, llama_cpp.__version__)
        if known is not None:
            return known
        body = derive_body(original, sha256)
        proof, lasting = _prove(original, body)
        if lasting:
            remember_proof(sha256, proof)
        if not proof.holds:
            body.unlink(missing_ok=True)
        return proof


def _prove(original: Path, body: Path) -> tuple[BodyProof, bool]:
    """Return the proof, and whether the next start would come to the same one."""
    # Packages that a caller put on its path at run time must be found by the child too.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-m", "cluster.engine.llama.proof", str(original), str(body)]
    reason = ""
    # A failed allocation aborts, too: only what happens twice is the body's.
    for _ in range(2):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment, timeout=_PROOF_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return _refuted(f"the proof of its body took longer than {_PROOF_TIMEOUT_S:g} s"), False
        if done.returncode == 0:
            return BodyProof(**json.loads(done.stdout.splitlines()[-1])), True
        said = done.stderr.strip().splitlines()
        reason = f"the proof of its body ended with status {done.returncode}: {said[-1] if said else 'no reason given'}"
        if not cause_of_exit(done.returncode).lies_in_the_input:
            return _refuted(reason), False
    return _refuted(reason), True


def _refuted(reason: str) -> BodyProof:
    return BodyProof(False, llama_cpp.__version__, reason=reason)

"""The headless body of a GGUF: the same model with a vocabulary of one, fed with token embeddings.

llama.cpp multiplies every token of a causal model with the whole vocabulary, and reserves logits of that size for every
model. Embeddings need neither. A body has a token table of one row and no vocabulary, so both cost nothing; all other
tensors are the original's, byte for byte. Its hidden states are the original's where llama.cpp's graph treats embeddings that
it is given like those that it looks up; ``cluster.engine.llama.headless`` proves that for each file.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from cluster.errors import ModelLoadError
from cluster.models.cache import cache_directory, make_once
from cluster.models.fingerprint import gguf_sha256
from cluster.models.header import GgufHeader, TensorEntry, begin_gguf, read_header
from cluster.models.progress import progress
from cluster.models.token_table import TOKEN_TABLE

DERIVATION_VERSION = 1
"""Part of every body's name: raised whenever a body would be derived otherwise."""

# A head that some graphs ask for even where no logits are wanted; one row satisfies them.
_ONE_ROW = (TOKEN_TABLE, "output.weight", "output.bias")
_TOKEN_TYPE_COUNT = "tokenizer.ggml.token_type_count"
_UINT32, _STRING = 4, 8
_CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BodyProof:
    """Whether a body's numbers are the original's.

    Attributes:
        holds: the body may stand in for the original.
        library: version of llama.cpp's binding that it was proved with.
        input_scale: what the looked-up embeddings must be multiplied with.
        largest_difference: between hidden states or scores of both, where they were compared.
        reason: why it does not hold.
    """

    holds: bool
    library: str
    input_scale: float = 1.0
    largest_difference: float | None = None
    reason: str = ""


def body_path(sha256: str) -> Path:
    """Where the body of a GGUF with this digest lies, whether it is there yet or not."""
    return cache_directory() / "bodies" / f"{sha256}-v{DERIVATION_VERSION}.gguf"


def derive_body(original: Path, sha256: str) -> Path:
    """Return the body of ``original``, derived once.

    Raises:
        ModelLoadError: the file is in several parts or no text model, or the body cannot be written.
    """
    path = body_path(sha256)
    if path.exists():
        return path
    header = read_header(original)
    needed = sum(_kept_bytes(name, entry) for name, entry in header.tensors.items())
    return make_once(path, lambda unfinished: write_body(original, unfinished), needed + _CHUNK_BYTES)


def read_proof(sha256: str, library: str) -> BodyProof | None:
    """Return what was proved of this body with this version of the library, or None."""
    try:
        read = json.loads(_proof_path(sha256).read_text(encoding="utf-8"))
        proof = BodyProof(**read)
    except (OSError, ValueError, TypeError):
        # Missing, or damaged: it is proved anew.
        return None
    return proof if proof.library == library else None


def is_served_headless(original: Path, library: str) -> bool:
    """Whether an encoder that may run headless will, as far as is known before its first start.

    Raises:
        ModelLoadError: the file cannot be read.
    """
    proof = read_proof(gguf_sha256(original), library)
    return proof is None or proof.holds


def remember_proof(sha256: str, proof: BodyProof) -> None:
    """Keep a proof beside the body.

    Raises:
        OSError: it cannot be written.
    """
    path = _proof_path(sha256)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(proof)), encoding="utf-8")
    fresh.replace(path)


def _proof_path(sha256: str) -> Path:
    return body_path(sha256).with_suffix(".json")


def write_body(original: Path, target: Path) -> None:
    """Write the body; tensors are copied in pieces, so that a model of any size needs little memory.

    Raises:
        ModelLoadError: the file is in several parts, or no text model.
        OSError: ``target`` cannot be written.
    """
    header = read_header(original)
    if int(header.metadata.get("split.count", 1)) > 1:
        raise ModelLoadError(f"{original} is one of several parts; merge them with llama-gguf-split --merge")
    if TOKEN_TABLE not in header.tensors:
        raise ModelLoadError(f"{original} has no tensor {TOKEN_TABLE}; it is not a text model")
    kept = {name: _cut(name, entry) for name, entry in header.tensors.items()}
    with (
        original.open("rb") as source,
        target.open("wb") as sink,
        progress(f"deriving the headless body of {original.name}", len(kept), "tensor") as step,
    ):
        sink.write(_head(source, header, kept))
        for entry in kept.values():
            sink.write(bytes(-sink.tell() % header.alignment))
            source.seek(entry.begin)
            _copy(source, sink, entry.size_bytes)
            step(1)


def _cut(name: str, entry: TensorEntry) -> TensorEntry:
    if name not in _ONE_ROW:
        return entry
    return replace(entry, shape=(1, *entry.shape[1:]), size_bytes=_kept_bytes(name, entry))


def _kept_bytes(name: str, entry: TensorEntry) -> int:
    return entry.size_bytes // entry.shape[0] if name in _ONE_ROW else entry.size_bytes


def _head(source: BinaryIO, header: GgufHeader, kept: dict[str, TensorEntry]) -> bytes:
    """Everything before the first tensor, per the GGUF specification."""
    vocabulary_size = f"{header.metadata['general.architecture']}.vocab_size"
    pairs = [
        _read(source, *span)
        for key, span in header.spans.items()
        if key == _TOKEN_TYPE_COUNT or not (key.startswith("tokenizer.") or key == vocabulary_size)
    ]
    pairs.append(_text("tokenizer.ggml.model") + struct.pack("<I", _STRING) + _text("none"))
    pairs.append(_text(vocabulary_size) + struct.pack("<II", _UINT32, 1))
    head = begin_gguf(len(kept), pairs)
    offset = 0
    for name, entry in kept.items():
        axes = entry.shape[::-1]
        head += _text(name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, entry.kind, offset)
        offset += math.ceil(entry.size_bytes / header.alignment) * header.alignment
    return head


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _read(source: BinaryIO, begin: int, end: int) -> bytes:
    source.seek(begin)
    return source.read(end - begin)


def _copy(source: BinaryIO, sink: BinaryIO, count: int) -> None:
    while count:
        piece = source.read(min(count, _CHUNK_BYTES))
        if not piece:
            raise OSError(f"the original ended {count} bytes early; was it replaced meanwhile?")
        sink.write(piece)
        count -= len(piece)

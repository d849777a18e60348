"""Golden texts: whether an encoder still computes what one of its fingerprint computed at an earlier start.

A library's next release or another kind of machine moves the last digits of a vector, and is meant to move no more. Each encoder
encodes a few fixed texts when it starts and compares them with what the first one of its fingerprint kept in the cache
directory. What was kept stays as it is: a slow drift over several releases is found, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.batching.encoder import Encoder
from cluster.config import Truncate
from cluster.errors import EngineError, PoolhouseError
from cluster.models.cache import cache_directory, lock
from cluster.pairs import Pair
from cluster.pooling import pool_one
from cluster.telemetry.metrics import GOLDEN_MISMATCHES
from cluster.texts import TextBatch, TextOptions
from cluster.tokenization import Tokenizer
from cluster.types import Float32, Int64, PoolingType, RequestFacts

logger = logging.getLogger("poolhouse")

LEAST_COSINE = 0.9999
"""Of each vector with the one kept. The shape of a batch alone moves numbers by 9e-5, which leaves the cosine above 0.999999."""

MOST_SCORE_DIFFERENCE = 5e-3
"""Of a head's output, and times its size where that is above 1. Flash attention alone moves scores by up to 1.1e-3."""

TEXTS = (
    "Cats sleep.",
    "Paris is the capital of France, and Berlin is the capital of Germany.",
    "Die Bücher im Regal sind älter als das Haus.",
    "東京は日本の首都です。",
    "def add(a, b): return a + 3.14",
)

_TEXTS_MARK = hashlib.sha256("\n".join(TEXTS).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What the texts came to: float32 ``[total]``, its int64 ``[n + 1]`` offsets, the columns of a row, and what computed it."""

    values: Float32
    offsets: Int64
    width: int
    build: str

    def rows(self, text: int) -> Float32:
        return self.values[self.offsets[text] : self.offsets[text + 1]].reshape(-1, self.width)


def check_golden(
    name: str, encoder: Encoder, tokenizer: Tokenizer, model: str, pooling_types: Collection[PoolingType]
) -> list[str]:
    """Compare an encoder's numbers for the golden texts with those of its fingerprint's first start.

    A difference is told in the log and on standard error and counted; it stops nobody, since all replicas after an update
    would share it.

    Args:
        name: of the encoder, as the configuration has it.

    Returns:
        What differs: a sentence for each pooling type, none where all is well or nothing was kept before.
    """
    vectors = [pooling for pooling in PoolingType if pooling in pooling_types and pooling is not PoolingType.RANK]
    differences: list[str] = []
    try:
        if vectors:
            differences += _compare(encoder, tokenizer, model, vectors)
        if PoolingType.RANK in pooling_types:
            differences += _compare(encoder, tokenizer, model, [PoolingType.RANK])
    except (PoolhouseError, OSError) as error:
        logger.warning("the golden texts of the encoder %r cannot be compared: %s", name, error)
    if differences:
        GOLDEN_MISMATCHES.labels(name).inc()
        told = (
            f"GOLDEN TEXTS DIFFER at the encoder {name!r} ({encoder.fingerprint}): {'; '.join(differences)}. "
            "What was stored under this fingerprint may not be comparable with new vectors"
        )
        logger.error(told)
        print(f"poolhouse: {told}", file=sys.stderr, flush=True)
    return differences


def _compare(encoder: Encoder, tokenizer: Tokenizer, model: str, pooling_types: Sequence[PoolingType]) -> list[str]:
    scores = PoolingType.RANK in pooling_types
    now, was_cut = _encode(encoder, tokenizer, model, scores)
    # Encoders of one fingerprint may differ in how much of a text they take.
    cut = f"-{tokenizer.models[model].max_tokens}" if was_cut else ""
    path = (
        cache_directory()
        / "golden"
        / f"{encoder.fingerprint}-{'scores' if scores else 'hidden'}{cut}-{_TEXTS_MARK}.npz"
    )
    path.parent.mkdir(exist_ok=True)
    with lock(path):
        earlier = _read(path)
        if earlier is None:
            _write(path, now)
            return []
    differences = _score_differences(now, earlier) if scores else _vector_differences(now, earlier, pooling_types)
    if not differences:
        return []
    where = f"kept by {earlier.build}, now {now.build}; to take today's numbers for right, delete {path}"
    return [*differences[:-1], f"{differences[-1]} ({where})"]


def _encode(encoder: Encoder, tokenizer: Tokenizer, model: str, scores: bool) -> tuple[_Numbers, bool]:
    # All vectors are pooled from the tokens' hidden states, which one call yields.
    options = (
        TextOptions(PoolingType.RANK, pair=Pair(TEXTS[1], truncate=Truncate.END))
        if scores
        else TextOptions(PoolingType.NONE, Truncate.END)
    )
    texts = TextBatch(model, list(TEXTS), [0] * len(TEXTS), [options], [RequestFacts("golden")])
    tokens = tokenizer.tokenize(texts)
    result = encoder.submit(tokens).result()
    if result.errors:
        raise next(iter(result.errors.values()))
    numbers = _Numbers(result.values, result.offsets, int(result.widths[0]), encoder.engine.build)
    if not np.isfinite(numbers.values).all():
        raise EngineError("a golden text is encoded to values that are not finite")
    return numbers, bool(tokens.cut_tokens.any())


def _vector_differences(now: _Numbers, earlier: _Numbers, pooling_types: Sequence[PoolingType]) -> list[str]:
    if now.width != earlier.width or not np.array_equal(now.offsets, earlier.offsets):
        return ["the texts are split into other tokens"]
    differences = []
    for pooling in pooling_types:
        cosines = [
            _cosines(pool_one(now.rows(text), pooling), pool_one(earlier.rows(text), pooling))
            for text in range(len(TEXTS))
        ]
        worst = min(cosines)
        if not worst >= LEAST_COSINE:
            text = TEXTS[cosines.index(worst)]
            differences.append(
                f"pooling type {pooling.value}: cosine {worst:.6f} for {text!r}, at least {LEAST_COSINE} is expected"
            )
    return differences


def _score_differences(now: _Numbers, earlier: _Numbers) -> list[str]:
    if now.values.shape != earlier.values.shape:
        return ["the head has another number of outputs"]
    excess = np.abs(now.values - earlier.values) / np.maximum(1.0, np.abs(earlier.values))
    worst = int(excess.argmax())
    if excess[worst] <= MOST_SCORE_DIFFERENCE:
        return []
    return [
        f"pooling type rank: score {now.values[worst]:.6f} in place of {earlier.values[worst]:.6f}, at most "
        f"{MOST_SCORE_DIFFERENCE} apart is expected"
    ]


def _cosines(rows: Float32, others: Float32) -> float:
    """The smallest cosine of any row with the other's; two rows of zeros are alike."""
    one, other = (np.atleast_2d(table).astype(np.float64) for table in (rows, others))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = (one * other).sum(axis=1)
    alike = (one == other).all(axis=1)
    return float(np.where(alike, 1.0, np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0)).min())


def _read(path: Path) -> _Numbers | None:
    """Return what an earlier start has kept; None where there is nothing, or nothing that can be read."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            values, offsets = kept["values"], kept["offsets"]
            numbers = _Numbers(values, offsets, int(kept["width"]), str(kept["build"]))
        whole = (
            values.dtype == np.float32
            and offsets.dtype == np.int64
            and len(offsets) == len(TEXTS) + 1
            and int(offsets[0]) == 0
            and int(offsets[-1]) == values.size
            and numbers.width > 0
            and not (np.diff(offsets) % numbers.width).any()
            and np.isfinite(values).all()
        )
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged and is written again: %s", path, error)
        return None
    if not whole:
        logger.warning("%s is damaged and is written again: its arrays do not fit together", path)
        return None
    return numbers


def _write(path: Path, numbers: _Numbers) -> None:
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("wb") as file:
            np.savez(
                file,
                values=numbers.values,
                offsets=numbers.offsets,
                width=numbers.width,
                build=np.asarray(numbers.build),
            )
        os.replace(fresh, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()

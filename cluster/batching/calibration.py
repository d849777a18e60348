"""Which size of micro-batch is fastest for this model on this machine: measured once, then kept in the cache directory.

llama.cpp masks attention over the whole micro-batch, so a large one wastes work; a small one wastes the matrix
kernels. Where the best size lies differs by machine and model.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cluster.batching.planning import MicroBatchSizes
from cluster.engine.protocol import Engine
from cluster.errors import ModelLoadError
from cluster.models.cache import cache_directory, lock
from cluster.types import offsets_of

logger = logging.getLogger("poolhouse")

_TEXT_TOKENS = 32
"""Length of the texts that it measures with: between a question's and a paragraph's."""

_SMALLEST_TOKENS = 32
_PASSES = 3
_LEAST_S = 0.1

# Part of every key: raised whenever the same engine would be measured otherwise.
_METHOD = 3

_SLOW = 0.8


def calibrated_sizes(engine: Engine, key: str, *, scores: bool = False, on_cpu: bool = False) -> MicroBatchSizes:
    """Return the sizes to cut micro-batches at, measured now or, for the same ``key``, before.

    Args:
        engine: at rest.
        key: names all that the speed depends on: file, device, threads, library.
        scores: the engine yields scores and no hidden states.
        on_cpu: the calling thread itself does the work.
    """
    key = f"{key} method={_METHOD}"
    try:
        path = cache_directory() / "calibration.json"
        guard = lock(path)
    except ModelLoadError as error:
        logger.warning("the calibration cannot be kept: %s", error.message)
        return MicroBatchSizes(measure(engine, scores=scores, on_cpu=on_cpu))
    try:
        # Replicas that start together measure one after the other, or the first one's result.
        with guard:
            known = _read(path)
            if key not in known:
                known[key] = [list(rate) for rate in measure(engine, scores=scores, on_cpu=on_cpu)]
                _write(path, known)
            return MicroBatchSizes(tuple((int(tokens), float(rate)) for tokens, rate in known[key]))
    except OSError as error:
        logger.warning("the calibration cannot be kept in %s: %s", path.parent, error.strerror or error)
        return MicroBatchSizes(measure(engine, scores=scores, on_cpu=on_cpu))


def measure(engine: Engine, *, scores: bool = False, on_cpu: bool = False) -> tuple[tuple[int, float], ...]:
    """Return (tokens, tokens per second) for sizes from 32 tokens up to the engine's largest.

    All slots work at once, each with its share of the threads, as they do under load.
    """
    best: dict[int, float] = {}
    sizes = _sizes(engine.max_micro_batch_tokens)
    for _ in range(_PASSES):
        for tokens in sizes:
            # Whatever else runs on the machine can only slow a call down: the fastest pass is the truest.
            best[tokens] = max(best.get(tokens, 0.0), _rate(engine, tokens, scores, on_cpu))
            # Once the cost of masked attention shows, every larger size is slower still. It shows twice, or was a disturbance.
            if best[tokens] < _SLOW * max(best.values()):
                best[tokens] = max(best[tokens], _rate(engine, tokens, scores, on_cpu))
                if best[tokens] < _SLOW * max(best.values()):
                    break
        sizes = list(best)
    rates = [(tokens, round(rate, 1)) for tokens, rate in best.items()]
    logger.info("calibrated: %s", ", ".join(f"{tokens} tokens {rate:.0f}/s" for tokens, rate in rates))
    return tuple(rates)


def _sizes(largest: int) -> list[int]:
    """Powers of two and what lies half-way between them, and the largest; each holds whole texts of ``_TEXT_TOKENS``."""
    sizes = {largest}
    size = _SMALLEST_TOKENS
    while size < largest:
        sizes |= {size, *([size * 3 // 2] if size > _TEXT_TOKENS else [])}
        size *= 2
    return sorted(tokens for tokens in sizes if tokens <= largest)


def _rate(engine: Engine, tokens: int, scores: bool, on_cpu: bool) -> float:
    length = min(_TEXT_TOKENS, tokens, engine.max_sequence_tokens)
    lengths = [length] * min(tokens // length, engine.max_sequences)
    total = sum(lengths)
    offsets = offsets_of(lengths)
    span = max(1, engine.facts.vocabulary_size - 1)
    # Spread over the vocabulary: equal ids would keep the look-up table's rows in the cache.
    token_ids = (np.arange(total, dtype=np.int64) * 7919 % span).astype(np.int32)
    single = np.full(len(lengths), -1, dtype=np.int32)
    threads = max(1, engine.threads // engine.slots)

    def call(slot: int, number: int) -> None:
        # Texts that begin like those of the slot's last call would be scored for less than others.
        ids = (token_ids + number) % span
        if scores:
            engine.score(ids, offsets, single, slot=slot, threads=threads)
        else:
            engine.encode(ids, offsets, slot=slot, threads=threads)

    # A call of one thread is timed by that thread's own CPU time: what other processes take of the cores while the engine
    # is measured must not be remembered as its speed.
    clock = time.thread_time if threads == 1 and on_cpu else time.monotonic

    def work(slot: int) -> float:
        rounds = 0
        started_s, busy_since_s = time.monotonic(), clock()
        while rounds < 1 or time.monotonic() - started_s < _LEAST_S:
            rounds += 1
            call(slot, rounds)
        return total * rounds / max(clock() - busy_since_s, 1e-9)

    call(0, 0)
    with ThreadPoolExecutor(engine.slots) as workers:
        return sum(workers.map(work, range(engine.slots)))


def _read(path: Path) -> dict[str, list[list[float]]]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Missing, or damaged: it is made anew.
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, list[list[float]]]) -> None:
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(json.dumps(known), encoding="utf-8")
        os.replace(fresh, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()

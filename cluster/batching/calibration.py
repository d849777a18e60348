"""Which size of micro-batch is fastest for this model on this machine: measured once, then kept in the cache directory.

llama.cpp masks attention over the whole micro-batch, so a large one wastes work; a small one wastes the matrix
kernels. Where the best size lies differs by machine and model. And a call just below 64 tokens can take twice as long as one
of 64, so small calls are measured with and without filler.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cluster.batching.planning import Filling, MicroBatchSizes
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
_METHOD = 4

_SLOW = 0.8

_TILE_TOKENS = 64
"""llama.cpp's flash attention on CPUs works on tiles of 64 queries (GGML_FA_TILE_Q), and on single ones where there are fewer."""

_SMALL_CALLS_TOKENS = (63, 56, 48, 40, 32, 24)
_SHORT_TOKENS = 16
_LONG_S = 0.5


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
        return _measured(engine, scores, on_cpu)
    try:
        # Replicas that start together measure one after the other, or the first one's result.
        with guard:
            known = _read(path)
            try:
                return _restored(known[key])
            except (KeyError, TypeError, ValueError):
                # Not measured yet, or damaged.
                sizes = _measured(engine, scores, on_cpu)
                _write(path, {**known, key: asdict(sizes)})
                return sizes
    except OSError as error:
        logger.warning("the calibration cannot be kept in %s: %s", path.parent, error.strerror or error)
        return _measured(engine, scores, on_cpu)


def _measured(engine: Engine, scores: bool, on_cpu: bool) -> MicroBatchSizes:
    rates = measure(engine, scores=scores, on_cpu=on_cpu)
    return MicroBatchSizes(rates, measure_filling(engine, scores=scores, on_cpu=on_cpu))


def _restored(kept: dict[str, Any]) -> MicroBatchSizes:
    rates = tuple((int(tokens), float(rate)) for tokens, rate in kept["rates"])
    filling = kept["filling"]
    if filling:
        measured = tuple((int(tokens), float(short), float(one)) for tokens, short, one in filling["measured"])
        filling = Filling(int(filling["tokens"]), int(filling["short_tokens"]), measured)
    return MicroBatchSizes(rates, filling or None)


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


def measure_filling(engine: Engine, *, scores: bool = False, on_cpu: bool = False) -> Filling | None:
    """Measure calls of fewer than 64 tokens against those of 64; None where none can be faster for being filled up."""
    # A causal model's cache would keep the filler, and what its sequences begin with in common is decoded once.
    if engine.facts.causal or min(engine.max_sequence_tokens, engine.max_micro_batch_tokens) < _TILE_TOKENS:
        return None

    def call_s(lengths: list[int]) -> float:
        fastest_s, spent_s, passes = math.inf, 0.0, 0
        while passes < _PASSES and spent_s < _LONG_S:
            begin_s = time.monotonic()
            fastest_s = min(fastest_s, sum(lengths) * engine.slots / _rate_of(engine, lengths, scores, on_cpu))
            spent_s += time.monotonic() - begin_s
            passes += 1
        return fastest_s

    filled_s = call_s([_TILE_TOKENS])
    measured: list[tuple[int, float, float]] = []
    for tokens in _SMALL_CALLS_TOKENS:
        in_short = [_SHORT_TOKENS] * (tokens // _SHORT_TOKENS) + [tokens % _SHORT_TOKENS] * (tokens % _SHORT_TOKENS > 0)
        in_one = call_s([tokens]) / filled_s
        measured.insert(0, (tokens, round(call_s(in_short) / filled_s, 3), round(in_one, 3)))
        if in_one < 1.0:
            # Attention costs one sequence most: no smaller call gains.
            break
    logger.info("calibrated: small calls against one of %d tokens: %s", _TILE_TOKENS, measured)
    filling = Filling(_TILE_TOKENS, _SHORT_TOKENS, tuple(measured))
    return filling if any(filling.missing_tokens([tokens]) for tokens, _, _ in measured) else None


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
    return _rate_of(engine, [length] * min(tokens // length, engine.max_sequences), scores, on_cpu)


def _rate_of(engine: Engine, lengths: list[int], scores: bool, on_cpu: bool) -> float:
    """Tokens per second of calls with sequences of these lengths, of all slots together."""
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


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Missing, or damaged: it is made anew.
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(json.dumps(known), encoding="utf-8")
        os.replace(fresh, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()

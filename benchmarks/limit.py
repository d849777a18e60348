"""The limit: how fast llama.cpp itself encodes the benchmark's texts, through its C API and nothing else.

Texts are tokenized and packed into micro-batches beforehand; the loop that is timed holds one native call and the copy of its
results. The micro-batch size is swept and the best taken. Prints one JSON object.

    python benchmarks/limit.py --gguf model.gguf --workload short --seconds 5
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cluster.benchmark.workloads import WORKLOADS, texts_of

SIZES_TOKENS = (64, 128, 192, 256, 384, 512, 768, 1024, 2048)
MAX_SEQUENCES = 256
POOLED_TOKENS = 40_000
SWEEP_SHARE = 0.1
POOLING = {
    "none": llama_cpp.LLAMA_POOLING_TYPE_NONE,
    "mean": llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    "cls": llama_cpp.LLAMA_POOLING_TYPE_CLS,
    "last": llama_cpp.LLAMA_POOLING_TYPE_LAST,
    "rank": llama_cpp.LLAMA_POOLING_TYPE_RANK,
}
_NO_LOG = llama_cpp.llama_log_callback(lambda level, text, data: None)


def tokenize(model: Any, text: str) -> list[int]:
    """Return a text's ids, special tokens included."""
    vocab = llama_cpp.llama_model_get_vocab(model)
    data = text.encode()
    ids = (ctypes.c_int32 * (len(data) + 8))()
    count = llama_cpp.llama_tokenize(vocab, data, len(data), ids, len(ids), True, False)
    return list(ids[:count])


def pack(texts: list[list[int]], size_tokens: int) -> list[list[list[int]]]:
    """Cut texts, longest first, into micro-batches of at most ``size_tokens`` (a longer text gets one of its own)."""
    batches: list[list[list[int]]] = []
    room: list[int] = []
    for ids in sorted(texts, key=len, reverse=True):
        for slot, left in enumerate(room):
            if len(ids) <= left and len(batches[slot]) < MAX_SEQUENCES:
                break
        else:
            slot = len(batches)
            batches.append([])
            room.append(max(size_tokens, len(ids)))
        batches[slot].append(ids)
        room[slot] -= len(ids)
    return batches


class Encoder:
    """One context of llama.cpp for micro-batches of up to ``size_tokens``."""

    def __init__(self, model: Any, size_tokens: int, pooling: str, threads: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = size_tokens
        params.n_seq_max = min(MAX_SEQUENCES, size_tokens)
        params.kv_unified = True
        params.embeddings = True
        params.pooling_type = POOLING[pooling]
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot make a context of {size_tokens} tokens")
        self.width = llama_cpp.llama_model_n_embd_out(model)
        if pooling == "rank":
            self.width = llama_cpp.llama_model_n_cls_out(model)
        self.by_token = pooling == "none"
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(size_tokens, 0, 1)
        self.out = np.empty((size_tokens, self.width), dtype=np.float32)

    def encode(self, batch: list[list[int]]) -> float:
        """Encode one micro-batch and copy its results; returns the seconds of the native call and the copy."""
        struct = self.batch
        token = 0
        for sequence, ids in enumerate(batch):
            for position, token_id in enumerate(ids):
                struct.token[token] = token_id
                struct.pos[token] = position
                struct.n_seq_id[token] = 1
                struct.seq_id[token][0] = sequence
                struct.logits[token] = 1
                token += 1
        struct.n_tokens = token
        begin_s = time.perf_counter()
        if self.memory:
            llama_cpp.llama_memory_clear(self.memory, False)
            status = llama_cpp.llama_decode(self.context, struct)
        else:
            status = llama_cpp.llama_encode(self.context, struct)
        if status != 0:
            raise SystemExit(f"llama.cpp failed with status {status}")
        if self.by_token:
            ctypes.memmove(self.out.ctypes.data, llama_cpp.llama_get_embeddings(self.context), token * self.width * 4)
        else:
            for sequence in range(len(batch)):
                row = llama_cpp.llama_get_embeddings_seq(self.context, sequence)
                ctypes.memmove(self.out[sequence].ctypes.data, row, self.width * 4)
        return time.perf_counter() - begin_s

    def close(self) -> None:
        """Free the context."""
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)


def timed(encoder: Encoder, batches: list[list[list[int]]], seconds: float) -> tuple[float, list[float]]:
    """Encode for about ``seconds`` of native time; returns tokens a second of it, and each call's seconds.

    Filling a batch in Python is not counted: it is this script's doing, not llama.cpp's.
    """
    encoder.encode(batches[0])
    took: list[float] = []
    tokens = 0
    for batch in itertools.cycle(batches):
        took.append(encoder.encode(batch))
        tokens += sum(map(len, batch))
        if sum(took) >= seconds:
            break
    return tokens / sum(took), took


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Sweep the micro-batch size, then measure the best, then single texts."""
    llama_cpp.llama_log_set(_NO_LOG, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(options.gguf).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {options.gguf}")
    texts: list[list[int]] = []
    for text in texts_of(WORKLOADS[options.workload], options.seed):
        texts.append(tokenize(model, text))
        if sum(map(len, texts)) >= POOLED_TOKENS:
            break
    longest = max(map(len, texts))
    sweep: dict[int, float] = {}
    for size in options.sizes:
        if len(options.sizes) > 1 and max(size, longest) not in sweep:
            encoder = Encoder(model, max(size, longest), options.pooling, options.threads)
            rate, _ = timed(encoder, pack(texts, size), max(0.4, SWEEP_SHARE * options.seconds))
            sweep[max(size, longest)] = rate
            encoder.close()
    best = max(sweep, key=lambda size: sweep[size]) if sweep else max(options.sizes[0], longest)
    encoder = Encoder(model, best, options.pooling, options.threads)
    cpu_s = -time.process_time()
    rate, took = timed(encoder, pack(texts, best), options.seconds)
    cpu_s += time.process_time()
    tokens = rate * sum(took)
    alone = [encoder.encode([ids]) for ids in texts[:60]]
    encoder.close()
    return {
        "workload": options.workload,
        "threads": options.threads,
        "tokens_per_s": rate,
        "tokens_per_text": float(np.mean([len(ids) for ids in texts])),
        "texts_per_s": rate / float(np.mean([len(ids) for ids in texts])),
        "micro_batch_tokens": best,
        "micro_batch_ms": float(np.median(took)) * 1e3,
        "alone_ms": float(np.median(alone)) * 1e3,
        "cpu_s_per_token": cpu_s / tokens,
        "sweep": {str(size): rate for size, rate in sweep.items()},
    }


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--workload", choices=tuple(WORKLOADS), default="short")
    parser.add_argument("--pooling", choices=tuple(POOLING), default="none")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=5.0, help="of the measured size, in native calls")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES_TOKENS, help="micro-batches to try, in tokens")
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()

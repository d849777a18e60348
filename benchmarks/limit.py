"""The limit: how fast llama.cpp itself encodes the benchmark's texts, through its C API and nothing else.

Texts are tokenized and packed into micro-batches beforehand; the loop that is timed holds one native call and the copy of its
results. Swept, and the best taken: the size of a micro-batch, and whether one context has all threads or each thread a context
of its own. Prints one JSON object.

    python -m benchmarks.limit --gguf model.gguf --workload short --seconds 5
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from cluster.benchmark.workloads import WORKLOADS, texts_of

SIZES_TOKENS = (64, 128, 192, 256, 384, 512, 1024)
ALONE_TEXTS = 60
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


class Context:
    """One context of llama.cpp and the micro-batches that it is to encode, filled beforehand."""

    def __init__(
        self, model: Any, size_tokens: int, pooling: str, threads: int, batches: list[list[list[int]]]
    ) -> None:
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
        by_pair = pooling == "rank"
        self.width = llama_cpp.llama_model_n_cls_out(model) if by_pair else llama_cpp.llama_model_n_embd_out(model)
        self.by_token = pooling == "none"
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.out = np.empty((size_tokens, self.width), dtype=np.float32)
        self.batches = [filled(batch) for batch in batches]
        self.sequences = [len(batch) for batch in batches]
        self.took_s: list[float] = []
        self.tokens = 0

    def encode(self, number: int) -> None:
        """Encode one micro-batch and copy its results."""
        struct = self.batches[number]
        begin_s = time.perf_counter()
        if self.memory:
            llama_cpp.llama_memory_clear(self.memory, False)
            status = llama_cpp.llama_decode(self.context, struct)
        else:
            status = llama_cpp.llama_encode(self.context, struct)
        if status != 0:
            raise SystemExit(f"llama.cpp failed with status {status}")
        if self.by_token:
            rows = llama_cpp.llama_get_embeddings(self.context)
            ctypes.memmove(self.out.ctypes.data, rows, struct.n_tokens * self.width * 4)
        else:
            for sequence in range(self.sequences[number]):
                row = llama_cpp.llama_get_embeddings_seq(self.context, sequence)
                ctypes.memmove(self.out[sequence].ctypes.data, row, self.width * 4)
        self.took_s.append(time.perf_counter() - begin_s)
        self.tokens += struct.n_tokens

    def encode_until(self, end_s: float) -> None:
        """Encode one micro-batch after the other until ``time.perf_counter`` passes ``end_s``."""
        for number in itertools.cycle(range(len(self.batches))):
            self.encode(number)
            if time.perf_counter() >= end_s:
                return

    def close(self) -> None:
        """Free the native memory."""
        for struct in self.batches:
            llama_cpp.llama_batch_free(struct)
        llama_cpp.llama_free(self.context)


def filled(batch: list[list[int]]) -> Any:
    """Return a ``llama_batch`` that holds these sequences."""
    struct = llama_cpp.llama_batch_init(sum(map(len, batch)), 0, 1)
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
    return struct


@dataclass(frozen=True, slots=True)
class Rate:
    """What one size and layout reaches."""

    tokens_per_s: float
    cpu_s_per_token: float
    micro_batch_ms: float


def timed(
    model: Any, texts: list[list[int]], size: int, contexts: int, threads: int, pooling: str, seconds: float
) -> Rate:
    """Encode for ``seconds`` on ``contexts`` at once, ``threads`` shared out among them."""
    longest = max(map(len, texts))
    batches = pack(texts, size)
    parts = [
        Context(model, max(size, longest), pooling, threads // contexts, batches[number::contexts] or batches)
        for number in range(contexts)
    ]
    for part in parts:
        part.encode(0)
        part.took_s.clear()
        part.tokens = 0
    cpu_s, begin_s = -time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(contexts) as pool:
        for done in [pool.submit(part.encode_until, begin_s + seconds) for part in parts]:
            done.result()
    took_s = time.perf_counter() - begin_s
    cpu_s += time.process_time()
    tokens = sum(part.tokens for part in parts)
    micro_batch_s = float(np.median([took for part in parts for took in part.took_s]))
    for part in parts:
        part.close()
    return Rate(tokens / took_s, cpu_s / tokens, micro_batch_s * 1e3)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Sweep the micro-batch size, then measure the best, then single texts."""
    llama_cpp.llama_log_set(_NO_LOG, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(options.gguf).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {options.gguf}")
    texts: list[list[int]] = []
    workload = WORKLOADS[options.workload]
    if options.words:
        workload = replace(workload, min_words=options.words[0], max_words=options.words[1])
    for text in texts_of(workload, options.seed):
        texts.append(tokenize(model, text))
        if sum(map(len, texts)) >= POOLED_TOKENS:
            break
    longest = max(map(len, texts))
    layouts = options.contexts or sorted({1, options.threads})
    sweep: dict[tuple[int, int], float] = {}
    for contexts, size in itertools.product(layouts, sorted({max(size, longest) for size in options.sizes})):
        if len(layouts) * len(options.sizes) > 1:
            seconds = max(0.4, SWEEP_SHARE * options.seconds)
            rate = timed(model, texts, size, contexts, options.threads, options.pooling, seconds)
            sweep[contexts, size] = rate.tokens_per_s
    contexts, size = max(sweep, key=lambda key: sweep[key]) if sweep else (layouts[0], max(options.sizes[0], longest))
    best = timed(model, texts, size, contexts, options.threads, options.pooling, options.seconds)
    alone = Context(model, longest, options.pooling, options.threads, [[ids] for ids in texts[:ALONE_TEXTS]])
    for number in range(len(alone.batches)):
        alone.encode(number)
    tokens_per_text = float(np.mean([len(ids) for ids in texts]))
    return {
        "workload": options.workload,
        "threads": options.threads,
        "tokens_per_s": best.tokens_per_s,
        "tokens_per_text": tokens_per_text,
        "texts_per_s": best.tokens_per_s / tokens_per_text,
        "contexts": contexts,
        "micro_batch_tokens": size,
        "micro_batch_ms": best.micro_batch_ms,
        "alone_ms": float(np.median(alone.took_s)) * 1e3,
        "cpu_s_per_token": best.cpu_s_per_token,
        "sweep": {f"{contexts} x {size}": rate for (contexts, size), rate in sweep.items()},
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
    parser.add_argument("--contexts", type=int, nargs="+", help="to run at once (default: 1, and one for each thread)")
    parser.add_argument(
        "--words", type=int, nargs=2, metavar=("LEAST", "MOST"), help="of a text, in place of the workload's"
    )
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()

"""A model in llama.cpp: one set of weights, and in each slot a context that yields hidden states or one that yields scores."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from cluster.engine.checks import check_packed
from cluster.engine.llama import library
from cluster.errors import EngineError, ModelLoadError
from cluster.types import Float32, Int32, Int64, ModelFacts, PoolingType

MAX_SEQUENCES = 256
"""llama.cpp's ``LLAMA_MAX_SEQ``."""

_HIDDEN = int(llama_cpp.LLAMA_POOLING_TYPE_NONE)
_RANK = int(llama_cpp.LLAMA_POOLING_TYPE_RANK)

_FLASH_ATTENTION = {
    "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class LlamaEngine:
    """See ``cluster.engine.protocol.Engine``. One call at a time in each slot.

    Args:
        micro_batch_tokens: of one call. A model that is not causal attends over a whole sequence at once, so its calls
            hold at least one sequence of ``context_tokens``, and the contexts are made that large.
        context_tokens: the longest sequence.
        threads: CPU threads in all.
        slots: contexts of each kind over the one set of weights.
        gpu_layers: -1 for all; falls back to the CPU where there is no GPU.
        hidden, rank: which kinds of contexts to make.

    Raises:
        ModelLoadError: the file or a context of it cannot be made.
    """

    def __init__(
        self,
        path: Path,
        facts: ModelFacts,
        *,
        micro_batch_tokens: int,
        context_tokens: int,
        threads: int,
        gpu_layers: int = 0,
        flash_attention: str = "auto",
        slots: int = 1,
        hidden: bool = True,
        rank: bool = False,
    ) -> None:
        self.facts = facts
        self.max_sequence_tokens = context_tokens
        self.max_micro_batch_tokens = micro_batch_tokens if facts.causal else max(micro_batch_tokens, context_tokens)
        # llama.cpp aborts when a context has more sequences than outputs.
        self.max_sequences = min(MAX_SEQUENCES, self.max_micro_batch_tokens)
        self.slots = slots
        self.threads = threads
        self._flash_attention = _FLASH_ATTENTION[flash_attention]
        self._contexts: dict[tuple[int, int], Any] = {}
        self._context_threads: dict[tuple[int, int], int] = {}
        self._model: Any = library.load_model(path, vocabulary_only=False, gpu_layers=gpu_layers)
        self._width = int(llama_cpp.llama_model_n_embd_out(self._model))
        self._batches = [_Batch(self.max_micro_batch_tokens) for _ in range(slots)]
        vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._vocabulary_size = int(llama_cpp.llama_vocab_n_tokens(vocab))
        kinds = [_HIDDEN] * hidden + [_RANK] * rank
        # All at once: making contexts is not thread-safe, and memory that is lacking should be missed now.
        for slot in range(slots):
            for kind in kinds:
                self._make_context(kind, slot)

    def encode(self, token_ids: Int32, offsets: Int64, *, slot: int = 0, threads: int | None = None) -> Float32:
        """Return the hidden states after the final norm, float32 ``[total_tokens, dimensions]``."""
        self._check(token_ids, offsets)
        context = self._context(_HIDDEN, slot, threads)
        batch = self._batches[slot]
        hidden = np.empty((len(token_ids), self._width), dtype=np.float32)
        if len(token_ids) <= self.max_micro_batch_tokens:
            batch.fill(token_ids, offsets)
            self._run(context, batch)
            self._copy_rows(context, hidden)
            return hidden
        # One long causal sequence: the KV cache carries it from step to step, and every step's rows are kept.
        for begin in range(0, len(token_ids), self.max_micro_batch_tokens):
            step = token_ids[begin : begin + self.max_micro_batch_tokens]
            batch.fill(step, np.asarray([0, len(step)], dtype=np.int64), first_position=begin)
            self._run(context, batch)
            self._copy_rows(context, hidden[begin : begin + len(step)])
        return hidden

    def score(
        self,
        token_ids: Int32,
        offsets: Int64,
        second_segment: Int32,
        *,
        slot: int = 0,
        threads: int | None = None,
    ) -> Float32:
        """Return the head's outputs as llama.cpp's graph gives them, float32 ``[n, n_labels]``."""
        if PoolingType.RANK not in self.facts.pooling_types:
            raise EngineError(f"the model has no classification head: {self.facts.refused.get(PoolingType.RANK, '')}")
        self._check(token_ids, offsets)
        if len(token_ids) > self.max_micro_batch_tokens:
            raise EngineError(
                f"a pair has {len(token_ids)} tokens and rank pools within one micro-batch of "
                f"{self.max_micro_batch_tokens}; raise micro_batch_tokens"
            )
        context = self._context(_RANK, slot, threads)
        batch = self._batches[slot]
        batch.fill(token_ids, offsets)
        self._run(context, batch)
        labels = int(llama_cpp.llama_model_n_cls_out(self._model))
        scores = np.empty((len(offsets) - 1, labels), dtype=np.float32)
        for sequence in range(len(scores)):
            row = llama_cpp.llama_get_embeddings_seq(context, sequence)
            if not row:
                raise EngineError(f"llama.cpp gave no score: {library.complaints()}")
            ctypes.memmove(scores[sequence].ctypes.data, row, labels * 4)
        return scores

    def close(self) -> None:
        """Free contexts and weights."""
        for context in self._contexts.values():
            llama_cpp.llama_free(context)
        self._contexts.clear()
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = None

    def _check(self, token_ids: Int32, offsets: Int64) -> None:
        if self._model is None:
            raise EngineError("the engine is closed")
        check_packed(
            token_ids,
            offsets,
            vocabulary_size=self._vocabulary_size,
            max_tokens=self.max_micro_batch_tokens,
            max_sequences=self.max_sequences,
            max_sequence_tokens=self.max_sequence_tokens,
            causal=self.facts.causal,
        )

    def _context(self, kind: int, slot: int, threads: int | None) -> Any:
        """Return the slot's context, empty and set to so many threads."""
        context = self._contexts.get((kind, slot))
        if context is None:
            raise EngineError(
                f"slot {slot} of this engine yields no {'scores' if kind == _RANK else 'hidden states'}; "
                "load it for the pooling types that it is to answer"
            )
        wanted = threads or self.threads
        if self._context_threads[kind, slot] != wanted:
            llama_cpp.llama_set_n_threads(context, wanted, wanted)
            self._context_threads[kind, slot] = wanted
        memory = llama_cpp.llama_get_memory(context)
        if memory:
            llama_cpp.llama_memory_clear(memory, False)
        return context

    def _make_context(self, kind: int, slot: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = max(self.max_sequence_tokens, self.max_micro_batch_tokens)
        # llama.cpp aborts when a text that is not causal does not fit into one physical batch.
        params.n_batch = params.n_ubatch = self.max_micro_batch_tokens
        params.n_seq_max = self.max_sequences
        params.kv_unified = True
        params.embeddings = True
        params.pooling_type = kind
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = self._flash_attention
        context = llama_cpp.llama_init_from_model(self._model, params)
        if not context:
            raise ModelLoadError(
                f"llama.cpp cannot make a context of {params.n_ctx} tokens: {library.complaints()}; "
                "lower context_tokens or micro_batch_tokens"
            )
        self._contexts[kind, slot] = context
        self._context_threads[kind, slot] = self.threads

    @staticmethod
    def _run(context: Any, batch: _Batch) -> None:
        has_memory = bool(llama_cpp.llama_get_memory(context))
        call = llama_cpp.llama_decode if has_memory else llama_cpp.llama_encode
        status = int(call(context, batch.struct))
        if status != 0:
            raise EngineError(f"llama.cpp failed with status {status}: {library.complaints()}")

    def _copy_rows(self, context: Any, rows: Float32) -> None:
        source = llama_cpp.llama_get_embeddings(context)
        if not source:
            raise EngineError(f"llama.cpp gave no hidden states: {library.complaints()}")
        ctypes.memmove(rows.ctypes.data, source, rows.nbytes)


class _Batch:
    """A ``llama_batch`` over NumPy arrays, filled without a Python loop over tokens."""

    def __init__(self, capacity: int) -> None:
        self._token = np.zeros(capacity, dtype=np.int32)
        self._position = np.zeros(capacity, dtype=np.int32)
        self._sequence = np.zeros(capacity, dtype=np.int32)
        self._count = np.ones(capacity, dtype=np.int32)
        self._output = np.ones(capacity, dtype=np.int8)
        # llama.cpp wants a pointer to each token's list of sequences; each list has one member here.
        self._pointers = (self._sequence.ctypes.data + 4 * np.arange(capacity, dtype=np.uintp)).astype(np.uintp)
        batch = llama_cpp.llama_batch()
        batch.token = self._token.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.embd = None
        batch.pos = self._position.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.n_seq_id = self._count.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.seq_id = self._pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        batch.logits = self._output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        self.struct = batch

    def fill(self, token_ids: Int32, offsets: Int64, first_position: int = 0) -> None:
        total = len(token_ids)
        lengths = offsets[1:] - offsets[:-1]
        self._token[:total] = token_ids
        self._position[:total] = np.arange(total) - np.repeat(offsets[:-1], lengths) + first_position
        self._sequence[:total] = np.repeat(np.arange(len(lengths)), lengths)
        self.struct.n_tokens = total

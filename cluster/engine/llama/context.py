"""A llama.cpp context: working memory over a model's weights, for one call at a time."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np

from cluster.engine.llama import library
from cluster.engine.llama.batch import Batch
from cluster.errors import EngineError, ModelLoadError
from cluster.types import Float32, Int32

HIDDEN = int(llama_cpp.LLAMA_POOLING_TYPE_NONE)
RANK = int(llama_cpp.LLAMA_POOLING_TYPE_RANK)

_FLASH_ATTENTION = {
    "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_NO_IDS: Int32 = np.zeros(0, dtype=np.int32)


class Context:
    """One context.

    Args:
        kind: ``HIDDEN`` or ``RANK``: what a call yields.

    Attributes:
        held: ids of the tokens whose keys and values sequence 0 has in the cache, of causal models.
        keeps_prefixes: the cache can forget a sequence's end and lend its beginning to other sequences.

    Raises:
        ModelLoadError: there is not enough memory for it.
    """

    def __init__(
        self,
        model: Any,
        kind: int,
        *,
        context_tokens: int,
        micro_batch_tokens: int,
        max_sequences: int,
        threads: int,
        flash_attention: str,
    ) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = max(context_tokens, micro_batch_tokens)
        # llama.cpp aborts when a text that is not causal does not fit into one physical batch.
        params.n_batch = params.n_ubatch = micro_batch_tokens
        params.n_seq_max = max_sequences
        # One cache for all sequences, whose entries several of them can share.
        params.kv_unified = True
        params.embeddings = True
        params.pooling_type = kind
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = _FLASH_ATTENTION[flash_attention]
        self._context: Any = llama_cpp.llama_init_from_model(model, params)
        if not self._context:
            raise ModelLoadError(
                f"llama.cpp cannot make a context of {params.n_ctx} tokens: {library.complaints()}; "
                "lower context_tokens or micro_batch_tokens"
            )
        self._threads = threads
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        recurrent = llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model)
        self.keeps_prefixes = bool(self._memory) and not recurrent
        self.held = _NO_IDS

    def set_threads(self, threads: int) -> None:
        """Use so many CPU threads from the next call on."""
        if threads != self._threads:
            llama_cpp.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads

    def forget(self, keep_tokens: int = 0) -> None:
        """Empty the cache but for the first ``keep_tokens`` of ``held``."""
        if not self._memory:
            return
        if keep_tokens:
            llama_cpp.llama_memory_seq_keep(self._memory, 0)
            llama_cpp.llama_memory_seq_rm(self._memory, 0, keep_tokens, -1)
        else:
            llama_cpp.llama_memory_clear(self._memory, False)
        self.held = self.held[:keep_tokens]

    def lend(self, tokens: int, sequences: int) -> None:
        """Let sequences 1 to ``sequences - 1`` begin with the first ``tokens`` of sequence 0; no number is copied."""
        for sequence in range(1, sequences):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, sequence, 0, tokens)

    def run(self, batch: Batch) -> None:
        """Compute a batch.

        Raises:
            EngineError: llama.cpp refuses or fails it.
        """
        call = llama_cpp.llama_decode if self._memory else llama_cpp.llama_encode
        status = int(call(self._context, batch.struct))
        if status != 0:
            raise EngineError(f"llama.cpp failed with status {status}: {library.complaints()}")

    def copy_rows(self, rows: Float32) -> None:
        """Copy the last batch's hidden states into ``rows``, float32 ``[total_tokens, dimensions]``.

        Raises:
            EngineError: there are none.
        """
        source = llama_cpp.llama_get_embeddings(self._context)
        if not source:
            raise EngineError(f"llama.cpp gave no hidden states: {library.complaints()}")
        ctypes.memmove(rows.ctypes.data, source, rows.nbytes)

    def copy_scores(self, scores: Float32) -> None:
        """Copy the last batch's scores of sequences 0, 1, … into ``scores``, float32 ``[n, n_labels]``.

        Raises:
            EngineError: one is missing.
        """
        for sequence, row in enumerate(scores):
            source = llama_cpp.llama_get_embeddings_seq(self._context, sequence)
            if not source:
                raise EngineError(f"llama.cpp gave no score: {library.complaints()}")
            ctypes.memmove(row.ctypes.data, source, row.nbytes)

    def close(self) -> None:
        """Free the native memory."""
        llama_cpp.llama_free(self._context)

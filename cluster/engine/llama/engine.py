"""A model in llama.cpp: one set of weights, and in each slot a context that yields hidden states or one that yields scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from cluster.engine.checks import check_packed
from cluster.engine.llama import library, machine
from cluster.engine.llama.batch import Batch
from cluster.engine.llama.context import HIDDEN, RANK, Context
from cluster.engine.llama.prefix import plan_prefix
from cluster.errors import EngineError, ModelLoadError
from cluster.models.token_table import TokenTable
from cluster.types import Float32, Int32, Int64, ModelFacts, PoolingType, offsets_of

MAX_SEQUENCES = 256
"""llama.cpp's ``LLAMA_MAX_SEQ``."""


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
        table: ``path`` is a headless body, and this holds the original's token embeddings.
        segment_types: the second text of a pair has token type 1; None: every token has type 0, as in llama.cpp's graph.
            The embeddings of the types, float32 ``[n_types, width]``.
        shares_prefixes: ``score`` decodes a causal model's common prefix once.

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
        table: TokenTable | None = None,
        segment_types: Float32 | None = None,
        shares_prefixes: bool = True,
    ) -> None:
        self.facts = facts
        self.max_sequence_tokens = context_tokens
        self.max_micro_batch_tokens = micro_batch_tokens if facts.causal else max(micro_batch_tokens, context_tokens)
        # llama.cpp aborts when a context has more sequences than outputs.
        self.max_sequences = min(MAX_SEQUENCES, self.max_micro_batch_tokens)
        self.slots = slots
        self.threads = threads
        on_gpu = library.available_gpu_layers(gpu_layers) != 0
        self.build = machine.build(on_gpu)
        self.device = machine.device(on_gpu)
        self._contexts: dict[tuple[int, int], Context] = {}
        self._table = table
        self._segment_step = None if segment_types is None else segment_types[1] - segment_types[0]
        self._shares_prefixes = shares_prefixes
        self._model: Any = library.load_model(path, vocabulary_only=False, gpu_layers=gpu_layers)
        self._width = int(llama_cpp.llama_model_n_embd_out(self._model))
        self._labels = int(llama_cpp.llama_model_n_cls_out(self._model))
        self._vocabulary_size = self._check_table(path)
        self._batches = [Batch(self.max_micro_batch_tokens) for _ in range(slots)]
        # All at once: making contexts is not thread-safe, and memory that is lacking should be missed now.
        for slot in range(slots):
            for kind in [HIDDEN] * hidden + [RANK] * rank:
                self._contexts[kind, slot] = Context(
                    self._model,
                    kind,
                    context_tokens=self.max_sequence_tokens,
                    micro_batch_tokens=self.max_micro_batch_tokens,
                    max_sequences=self.max_sequences,
                    threads=threads,
                    flash_attention=flash_attention,
                )

    def encode(self, token_ids: Int32, offsets: Int64, *, slot: int = 0, threads: int | None = None) -> Float32:
        """Return the hidden states after the final norm, float32 ``[total_tokens, dimensions]``."""
        self._check(token_ids, offsets)
        context = self._context(HIDDEN, slot, threads)
        context.forget()
        hidden = np.empty((len(token_ids), self._width), dtype=np.float32)
        tokens = self._inputs(token_ids)
        if len(tokens) <= self.max_micro_batch_tokens:
            self._run(context, slot, tokens, offsets)
            context.copy_rows(hidden)
            return hidden
        # One long causal sequence: the KV cache carries it from step to step, and every step's rows are kept.
        for begin in range(0, len(tokens), self.max_micro_batch_tokens):
            end = min(len(tokens), begin + self.max_micro_batch_tokens)
            self._run(context, slot, tokens[begin:end], offsets_of([end - begin]), begin)
            context.copy_rows(hidden[begin:end])
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
        """Return the head's outputs as llama.cpp's graph gives them, float32 ``[n, n_labels]``.

        What all sequences of a causal model begin with (the template, the query) is decoded once, and not at all where
        the slot's last call began with it too.
        """
        if PoolingType.RANK not in self.facts.pooling_types:
            raise EngineError(f"the model has no classification head: {self.facts.refused.get(PoolingType.RANK, '')}")
        self._check(token_ids, offsets)
        context = self._context(RANK, slot, threads)
        scores = np.empty((len(offsets) - 1, self._labels), dtype=np.float32)
        tokens = self._inputs(token_ids)
        if self._segment_step is not None:
            tokens = tokens + self._segment_step * _in_second_segment(offsets, second_segment)[:, None]
        if context.keeps_prefixes and self._shares_prefixes:
            self._score_behind_prefix(context, slot, token_ids, tokens, offsets)
        else:
            context.forget()
            self._run_steps(context, slot, tokens, offsets)
        context.copy_scores(scores)
        return scores

    def close(self) -> None:
        """Free contexts and weights."""
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = None

    def _check_table(self, path: Path) -> int:
        """Return the number of valid ids, having made sure that the embeddings are as wide as the graph reads them."""
        if self._table is None:
            if self._segment_step is not None:
                raise ModelLoadError("token types are added to embeddings, and this engine is not fed with embeddings")
            return int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model)))
        width = int(llama_cpp.llama_model_n_embd_inp(self._model))
        if self._table.width != width:
            raise ModelLoadError(f"{path} reads embeddings of {width} values and the table's have {self._table.width}")
        return self._table.size

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

    def _context(self, kind: int, slot: int, threads: int | None) -> Context:
        context = self._contexts.get((kind, slot))
        if context is None:
            raise EngineError(
                f"slot {slot} of this engine yields no {'scores' if kind == RANK else 'hidden states'}; "
                "load it for the pooling types that it is to answer"
            )
        context.set_threads(threads or self.threads)
        return context

    def _inputs(self, token_ids: Int32) -> Int32 | Float32:
        return token_ids if self._table is None else self._table.rows(token_ids)

    def _run(
        self, context: Context, slot: int, tokens: Int32 | Float32, offsets: Int64, first_position: int = 0
    ) -> None:
        batch = self._batches[slot]
        batch.fill(tokens, np.diff(offsets), first_position)
        context.run(batch)

    def _run_steps(
        self, context: Context, slot: int, tokens: Int32 | Float32, offsets: Int64, first_position: int = 0
    ) -> None:
        """Run a whole call, or one longer sequence in several steps of which the last holds its last token."""
        last_step = max(0, len(tokens) - 1) // self.max_micro_batch_tokens * self.max_micro_batch_tokens
        for begin in range(0, last_step, self.max_micro_batch_tokens):
            step = tokens[begin : begin + self.max_micro_batch_tokens]
            self._run(context, slot, step, offsets_of([len(step)]), first_position + begin)
        rest = tokens[last_step:]
        self._run(context, slot, rest, offsets_of([len(rest)]) if last_step else offsets, first_position + last_step)

    def _score_behind_prefix(
        self, context: Context, slot: int, token_ids: Int32, tokens: Int32 | Float32, offsets: Int64
    ) -> None:
        kept, shared = plan_prefix(token_ids, offsets, context.held)
        context.forget(kept)
        # Were the call to fail half-way, the next one must not trust what lies in the cache.
        context.held = token_ids[:0]
        if shared > kept:
            self._run(context, slot, tokens[kept:shared], offsets_of([shared - kept]), kept)
        context.lend(shared, len(offsets) - 1)
        lengths = np.diff(offsets)
        behind = np.arange(len(tokens)) - np.repeat(offsets[:-1], lengths) >= shared
        self._run_steps(context, slot, tokens[behind], offsets_of(lengths - shared), shared)
        context.held = token_ids[: int(offsets[1])].copy()


def _in_second_segment(offsets: Int64, second_segment: Int32) -> Float32:
    """Return 1 for tokens of a pair's second text and 0 for others, float32 ``[total_tokens]``."""
    lengths = np.diff(offsets)
    begins = np.where(second_segment < 0, lengths, second_segment)
    positions = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], lengths)
    return (positions >= np.repeat(begins, lengths)).astype(np.float32)

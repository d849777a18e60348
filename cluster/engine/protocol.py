"""What an engine is: a vocabulary that turns text into ids, and a model that turns packed ids into numbers.

Two implementations: ``cluster.engine.llama`` (llama.cpp) and ``cluster.engine.fake`` (deterministic, no weights).
An engine has slots: one call at a time in each, calls in different slots at the same time. One set of weights serves all.
"""

from __future__ import annotations

from typing import Protocol

from cluster.types import Float32, Int32, Int64, ModelFacts


class Vocabulary(Protocol):
    """A model's tokenizer.

    Attributes:
        size: valid ids are ``0 … size - 1``.
        prefix: special ids that stand before every sequence (``[CLS]``, BOS), possibly none.
        suffix: special ids that end every sequence (``[SEP]``, EOS), possibly none.
        bos, eos, sep: ids of these tokens, or -1.
        add_bos, add_eos, add_sep: the GGUF's flags, which pair formatting follows.
    """

    size: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    bos: int
    eos: int
    sep: int
    add_bos: bool
    add_eos: bool
    add_sep: bool

    def tokenize(self, text: str, parse_special: bool = False) -> Int32:
        """Return the ids of ``text`` without prefix and suffix, int32 ``[n]``.

        With ``parse_special``, text that spells a special token becomes that token.
        """
        ...

    def piece(self, token_id: int) -> bytes:
        """Return the bytes that ``token_id`` stands for (special tokens spelled out)."""
        ...

    def detokenize(self, token_ids: Int32) -> str:
        """Return the text of ``token_ids``; bytes that are not UTF-8 become U+FFFD."""
        ...

    def template(self, name: str) -> str | None:
        """Return the GGUF's chat template of that name (``rerank``), or None."""
        ...

    def close(self) -> None:
        """Free the native memory."""
        ...


class Engine(Protocol):
    """A loaded model.

    Attributes:
        facts: what the GGUF says of itself.
        max_micro_batch_tokens: a call to ``encode`` or ``score`` takes at most so many tokens, except that a causal
            model takes one longer sequence alone and decodes it in several steps.
        max_sequences: a call takes at most so many sequences.
        max_sequence_tokens: the longest sequence that it takes.
        slots: how many calls may run at once, each in a slot of its own.
        threads: CPU threads in all; a call takes as many of them as its caller says.
        build: what computes, in ASCII without commas: the library's release and build, and the instructions and devices that
            it uses. Two builds give nearly the same numbers from the same weights.
        device: names the processor and, where they compute, the GPUs with their driver: what its speed depends on.
    """

    facts: ModelFacts
    max_micro_batch_tokens: int
    max_sequences: int
    max_sequence_tokens: int
    slots: int
    threads: int
    build: str
    device: str

    def encode(self, token_ids: Int32, offsets: Int64, *, slot: int = 0, threads: int | None = None) -> Float32:
        """Return the hidden states after the final norm, float32 ``[total_tokens, dimensions]``.

        Args:
            token_ids: int32 ``[total_tokens]``.
            offsets: int64 ``[n + 1]``, n ≥ 1, every sequence at least one token long.
            slot: no other call may run in it.
            threads: CPU threads of this call; None: all.

        Raises:
            EngineError: the call breaks a limit (checked before native code sees it) or native code failed.
        """
        ...

    def score(
        self,
        token_ids: Int32,
        offsets: Int64,
        second_segment: Int32,
        *,
        slot: int = 0,
        threads: int | None = None,
    ) -> Float32:
        """Return the classification head's outputs as the graph gives them, float32 ``[n, n_labels]``.

        An engine may compute what the sequences begin with in common once, and keep it for the next call in the slot.

        Args:
            token_ids: int32 ``[total_tokens]`` of whole pairs.
            offsets: int64 ``[n + 1]``.
            second_segment: int32 ``[n]``, position in each pair where the second text begins, or -1.
            slot, threads: as ``encode``.

        Raises:
            EngineError: as ``encode``; also where the model has no head.
        """
        ...

    def close(self) -> None:
        """Free the native memory. Further calls are errors."""
        ...

"""What must hold of a packed call before native code may see it.

llama.cpp ends the whole process on a failed assertion, so every length, id and count is checked here first.
"""

from __future__ import annotations

from cluster.errors import EngineError
from cluster.types import Int32, Int64


def check_packed(
    token_ids: Int32,
    offsets: Int64,
    *,
    vocabulary_size: int,
    max_tokens: int,
    max_sequences: int,
    max_sequence_tokens: int,
    causal: bool,
) -> None:
    """Check one engine call.

    Args:
        max_tokens: of the whole call; a causal model may exceed it with a single sequence, which is decoded in steps.

    Raises:
        EngineError: says which limit the call breaks.
    """
    sequences = len(offsets) - 1
    if sequences < 1:
        raise EngineError("an engine call has no sequence; send at least one")
    if int(offsets[0]) != 0 or int(offsets[-1]) != len(token_ids):
        raise EngineError(f"offsets run from {offsets[0]} to {offsets[-1]} over {len(token_ids)} tokens")
    lengths = offsets[1:] - offsets[:-1]
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 1:
        raise EngineError("a sequence of an engine call has no token; every sequence needs at least one")
    if longest > max_sequence_tokens:
        raise EngineError(f"a sequence has {longest} tokens and the context holds {max_sequence_tokens}")
    if len(token_ids) > max_tokens and not (causal and sequences == 1):
        raise EngineError(f"a call has {len(token_ids)} tokens and the micro-batch holds {max_tokens}")
    if sequences > max_sequences:
        raise EngineError(f"a call has {sequences} sequences and the context takes {max_sequences}")
    if int(token_ids.min()) < 0 or int(token_ids.max()) >= vocabulary_size:
        raise EngineError(f"a call has a token id outside the vocabulary (0 to {vocabulary_size - 1})")

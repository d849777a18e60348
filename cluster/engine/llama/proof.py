"""Whether a headless body computes what its original does, tried on sample token sequences.

    python -m cluster.engine.llama.proof ORIGINAL BODY

Prints a JSON object with the fields of ``cluster.models.body.BodyProof``. It is a process of its own because llama.cpp
ends the process on a failed assertion, which is what a graph that cannot be fed with embeddings may meet.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import llama_cpp
import numpy as np

from cluster.engine.llama.engine import LlamaEngine
from cluster.errors import PoolhouseError
from cluster.models.body import BodyProof
from cluster.models.inspect import inspect_gguf
from cluster.models.token_table import TokenTable
from cluster.types import Float32, Int32, Int64, ModelFacts, PoolingType, offsets_of

_CALL_TOKENS = 64
_LENGTHS = (1, 2, 5, 11, 18, 27)
_CALLS = 4


def prove(original: Path, body: Path) -> BodyProof:
    """Compare hidden states, and scores where there is a head, of several calls.

    Most graphs take embeddings as they are; Gemma's multiply ids' embeddings with √width, but not given ones.

    Raises:
        ModelLoadError: one of the files does not load.
        EngineError: a call failed.
    """
    facts = inspect_gguf(original).facts()
    expected = _numbers(original, facts, None)
    smallest = math.inf
    for input_scale in (1.0, float(np.sqrt(np.float32(facts.dimensions)))):
        found = _numbers(body, facts, TokenTable(original, input_scale))
        differences = [float(np.abs(ours - theirs).max()) for ours, theirs in zip(found, expected, strict=True)]
        # A difference that is not a number must not pass for a small one.
        largest = max(differences) if not np.isnan(differences).any() else math.inf
        if largest == 0.0:
            return BodyProof(True, llama_cpp.__version__, input_scale, 0.0)
        smallest = min(smallest, largest)
    return BodyProof(
        False,
        llama_cpp.__version__,
        largest_difference=smallest if math.isfinite(smallest) else None,
        reason=f"its numbers differ from the original's by up to {smallest:.2g}",
    )


def _numbers(path: Path, facts: ModelFacts, table: TokenTable | None) -> list[Float32]:
    rank = PoolingType.RANK in facts.pooling_types
    lengths = [min(length, facts.context_tokens) for length in _LENGTHS]
    engine = LlamaEngine(
        path,
        facts,
        micro_batch_tokens=_CALL_TOKENS,
        context_tokens=min(facts.context_tokens, _CALL_TOKENS),
        threads=1,
        rank=rank,
        table=table,
    )
    try:
        calls: list[Callable[[Int32, Int64], Float32]] = [engine.encode]
        if rank:
            calls.append(lambda ids, offsets: engine.score(ids, offsets, np.full(len(lengths), -1, dtype=np.int32)))
        random = np.random.default_rng(0)
        numbers = []
        for _ in range(_CALLS):
            ids = random.integers(0, facts.vocabulary_size, sum(lengths), dtype=np.int32)
            # Both ends of the table are met for certain.
            ids[:2] = 0, facts.vocabulary_size - 1
            numbers += [call(ids, offsets_of(lengths)) for call in calls]
        return numbers
    finally:
        engine.close()


def main() -> None:
    """Print the proof for the two files on the command line."""
    original, body = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        proof = prove(original, body)
    except PoolhouseError as error:
        proof = BodyProof(False, llama_cpp.__version__, reason=error.message)
    print(json.dumps(dataclasses.asdict(proof)))


if __name__ == "__main__":
    main()

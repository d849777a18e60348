"""Inputs that have killed an encoder, remembered by a digest of their tokens, so that they never reach one again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace

from cluster.errors import PoisonousInput
from cluster.types import TokenBatch, VectorBatch

# 32 bytes each; a client that finds so many deadly texts has other ways.
_MOST = 4096


class Poisons:
    """The digests of deadly items; the longest unseen is forgotten first."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._digests)

    def learn(self, batch: TokenBatch, answer: VectorBatch) -> None:
        """Remember the items of ``batch`` that its answer calls poisonous."""
        for item, error in answer.errors.items():
            if isinstance(error, PoisonousInput):
                self._digests[_digest(batch, item)] = None
                if len(self._digests) > self._most:
                    self._digests.popitem(last=False)

    def refuse(self, batch: TokenBatch) -> TokenBatch:
        """Return the message with an error for every item that is known to be deadly."""
        if not self._digests:
            return batch
        errors = dict(batch.errors)
        for item in range(len(batch)):
            digest = _digest(batch, item)
            if item not in errors and digest in self._digests:
                self._digests.move_to_end(digest)
                errors[item] = poisonous()
        return replace(batch, errors=errors) if len(errors) > len(batch.errors) else batch


def poisonous() -> PoisonousInput:
    """The error of an item that has killed an encoder."""
    return PoisonousInput(
        "this input has ended the process that encoded it, also alone, and is refused from now on; leave it out, and report "
        "it with the model's name"
    )


def _digest(batch: TokenBatch, item: int) -> bytes:
    digest = hashlib.blake2b(batch.ids(item).tobytes(), digest_size=32)
    digest.update(bytes((int(batch.pooling[item]),)))
    digest.update(int(batch.second_segment[item]).to_bytes(8, "little", signed=True))
    return digest.digest()

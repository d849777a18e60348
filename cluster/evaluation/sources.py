"""Where hidden states come from: one small protocol, two implementations (``local`` and ``server``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.types import Float32, PoolingType


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known of the model behind a source of hidden states.

    Attributes:
        pooling_types: those that the model answers.
        refused: for each other pooling type, why not.
        trained_pooling: what the GGUF names; None where it names none or the source does not say.
        causal: None where the source does not say.
        ends_with_token: whether an end token closes every text; None where the source does not say.
    """

    name: str
    architecture: str
    pooling_types: tuple[PoolingType, ...]
    refused: dict[PoolingType, str]
    trained_pooling: PoolingType | None
    causal: bool | None
    ends_with_token: bool | None


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a sequence as the model sees it; ``special`` for those that are put around a text."""

    id: int
    piece: str
    special: bool


class HiddenStateSource(Protocol):
    """Yields what ``none`` returns."""

    @property
    def facts(self) -> SourceFacts:
        """What is known of the model."""
        ...

    @property
    def cut_tokens(self) -> int:
        """Tokens cut so far from the ends of texts that are longer than the model takes."""
        ...

    def hidden_states(self, texts: Sequence[str]) -> Iterator[Float32]:
        """Yield float32 ``[n_tokens, dimensions]`` for each text, in order, without holding many at a time.

        Raises:
            PoolhouseError: a text cannot be encoded, or the server does not answer.
        """
        ...

    def tokens(self, text: str) -> list[Token]:
        """Return the tokens whose hidden states ``hidden_states`` yields for this text, in order."""
        ...

    def close(self) -> None:
        """Free what the source holds."""
        ...

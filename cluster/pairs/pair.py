"""A pair of texts, its ids, and what goes wrong with either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cluster.config import Truncate
from cluster.errors import InputTooLong, InvalidRequest, PoolhouseError
from cluster.types import Int32


@dataclass(frozen=True, slots=True)
class Pair:
    """What the pairs of one request have in common: the first text, and how the second is cut.

    Attributes:
        instruction: takes the place of the template's own.
        document_tokens: cap on the second text's own tokens.
        max_tokens: cap on the whole pair, below the model's.
        query_param: request field of the first text, for errors.
    """

    query: str
    instruction: str | None = None
    document_tokens: int | None = None
    max_tokens: int | None = None
    truncate: Truncate = Truncate.NONE
    query_param: str = "query"

    def most_tokens(self, of_model: int) -> int:
        """The longest that the pair may be."""
        return of_model if self.max_tokens is None else min(of_model, self.max_tokens)


@dataclass(frozen=True, slots=True)
class PairIds:
    """One pair: int32 ``[n_tokens]`` ids, where the second text begins in them, and how many tokens were cut from it."""

    ids: Int32
    second_segment: int
    cut_tokens: int


class BegunPair(Protocol):
    """A pair whose first text is set."""

    def end(self, document: str) -> PairIds:
        """Add the second text.

        Raises:
            InputTooLong: the pair is longer than the model takes, and truncation was not asked for.
        """
        ...


class PairFormat(Protocol):
    """How a model wants its pairs."""

    @property
    def least_tokens(self) -> int:
        """The tokens of the shortest pair whose document has one."""
        ...

    def begin(self, pair: Pair) -> BegunPair:
        """Set the first text.

        Raises:
            InputTooLong: it leaves no room for a document, and ``param`` is the query's field; or the instruction alone leaves
                none, and ``param`` is ``instruction``.
            InvalidRequest: there is an instruction and the model takes none; ``param`` is ``instruction``. Or the request's cap
                is below any pair.
        """
        ...


class Pairs:
    """Makes the pairs of several requests; the first text of each is set once, and what is wrong with it is found once."""

    def __init__(self, pair_format: PairFormat) -> None:
        self._format = pair_format
        self._begun: dict[int, BegunPair | PoolhouseError] = {}

    def of(self, owner: int, pair: Pair, document: object) -> PairIds:
        """Return the ids of one pair.

        Args:
            owner: stands for the request that ``pair`` belongs to.

        Raises:
            InvalidRequest: the document is no text; and what ``PairFormat.begin`` and ``BegunPair.end`` raise.
        """
        begun = self._begun.get(owner)
        if begun is None:
            try:
                begun = self._format.begin(pair)
            except PoolhouseError as error:
                begun = error
            self._begun[owner] = begun
        if isinstance(begun, PoolhouseError):
            raise begun
        if not isinstance(document, str):
            raise InvalidRequest("the second text of a pair is token ids; send a string")
        return begun.end(document)


def check_truncation(pair: Pair, total: int, max_tokens: int) -> None:
    """Check that a document that is too long may be cut.

    Raises:
        InputTooLong: it may not.
    """
    if pair.truncate is Truncate.NONE:
        raise InputTooLong(
            f"query and document have {total} tokens together and at most {max_tokens} are taken, which makes them too large; "
            'shorten the document, or send "truncate": "end"',
            n_prompt_tokens=total,
            n_ctx=max_tokens,
        )


def query_too_long(pair: Pair, total: int, of_model: int) -> InputTooLong:
    """The error for a query that leaves no room for a document; ``total`` is its length with what stands around it."""
    return _no_room(pair.query_param, f"{pair.query_param} has {total} tokens", pair, total, of_model)


def check_cap(pair: Pair, least_tokens: int, of_model: int) -> None:
    """Check that the request's own cap has room for a pair.

    Raises:
        InvalidRequest: it has none; ``param`` is ``truncate_prompt_tokens``.
    """
    if pair.max_tokens is not None and pair.max_tokens < least_tokens <= of_model:
        raise InvalidRequest(
            f"truncate_prompt_tokens is {pair.max_tokens}, and the shortest pair of texts has {least_tokens} tokens with what "
            "stands around it; send more, or -1 for what the model takes",
            "truncate_prompt_tokens",
        )


def instruction_too_long(pair: Pair, total: int, of_model: int) -> InputTooLong:
    """The error for an instruction that leaves no room for a query and a document; ``total`` as for ``query_too_long``."""
    return _no_room("instruction", f"instruction has {total} tokens", pair, total, of_model)


def _no_room(param: str, has: str, pair: Pair, total: int, of_model: int) -> InputTooLong:
    max_tokens = pair.most_tokens(of_model)
    who = "the model takes" if max_tokens == of_model else "the request asks for"
    return InputTooLong(
        f"{has} with what stands around it, and {who} at most {max_tokens}, document included, so it is too large; "
        f"shorten it{'' if max_tokens == of_model else ', or ask for more'}",
        param,
        n_prompt_tokens=total,
        n_ctx=max_tokens,
    )


def no_instruction() -> InvalidRequest:
    """The error for an instruction to a model that takes none."""
    return InvalidRequest(
        "the model takes no instruction: it has no template with a line <Instruct>; leave it out", "instruction"
    )

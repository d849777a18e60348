"""Texts and pairs → packed token ids: prompts, special tokens, truncation. The Tokenizer stage.

A sequence is ``prefix + prompt + text + suffix``; prefix and suffix are the special tokens that the GGUF's flags ask for, and
truncation cuts the text only. Token ids that a client sends are taken as they are: nothing is put around them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cluster.calls import Input
from cluster.config import ModelConfig, Truncate
from cluster.engine.protocol import Vocabulary
from cluster.errors import ConfigError, InputTooLong, InvalidRequest, PoolhouseError, nearest
from cluster.item_errors import SHOWN
from cluster.pairs import PairFormat, Pairs, pair_format
from cluster.texts import TextBatch, TextOptions
from cluster.types import Int32, ModelFacts, PoolingType, TokenBatch, offsets_of


@dataclass(frozen=True, slots=True)
class TokenizedModel:
    """One model as the Tokenizer sees it."""

    name: str
    config: ModelConfig
    facts: ModelFacts
    fingerprint: str
    vocabulary: Vocabulary
    max_tokens: int
    pair_format: PairFormat
    suffix: tuple[int, ...] = field(default=())

    @classmethod
    def create(
        cls,
        name: str,
        config: ModelConfig,
        facts: ModelFacts,
        fingerprint: str,
        vocabulary: Vocabulary,
        context_tokens: int | None = None,
        context_key: str = "context_tokens of an encoder",
    ) -> TokenizedModel:
        """Settle the end token and the longest sequence from the model's and the configuration's word on them.

        Args:
            context_tokens: of the model's encoders, the least that is configured; ``context_key`` names it in errors.

        Raises:
            ConfigError: the longest sequence has no room for a text beside the special tokens, or beside a prompt.
        """
        suffix = vocabulary.suffix
        if config.append_eos is True and vocabulary.eos >= 0 and (not suffix or suffix[-1] != vocabulary.eos):
            suffix = (*suffix, vocabulary.eos)
        if config.append_eos is False:
            suffix = ()
        lengths = {
            "the model's own context": facts.context_tokens,
            f"models.{name}.max_tokens": config.max_tokens,
            context_key: context_tokens,
        }
        said = {key: length for key, length in lengths.items() if length is not None}
        limit = min(said, key=lambda key: said[key])
        max_tokens = said[limit]
        _check_room(name, config, vocabulary, len(vocabulary.prefix) + len(suffix), max_tokens, limit)
        pairs = pair_format(vocabulary, max_tokens, append_eos=config.append_eos)
        if PoolingType.RANK in facts.pooling_types and pairs.least_tokens > max_tokens:
            raise ConfigError(
                f"{limit} is {max_tokens}, and a pair of texts has at least {pairs.least_tokens} tokens with what the model "
                f"{name!r} puts around it; raise it"
            )
        return cls(name, config, facts, fingerprint, vocabulary, max_tokens, pairs, suffix)


@dataclass(frozen=True, slots=True)
class ShownTokens:
    """Tokens to be shown, packed: int32 ``[n]`` ids, and the piece of each different one where they were asked for.

    Attributes:
        distinct: int32 ``[k]``, the different ids in rising order.
        pieces: their bytes.
    """

    ids: Int32
    distinct: Int32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    pieces: list[bytes] = field(default_factory=list)


class Tokenizer:
    """The Tokenizer stage for all models of a configuration."""

    def __init__(self, models: Mapping[str, TokenizedModel]) -> None:
        self.models = dict(models)

    def tokenize(self, batch: TextBatch) -> TokenBatch:
        """Turn texts into packed ids; an item that cannot be tokenized carries its own error instead of tokens."""
        model = self.models[batch.model]
        sequences: list[Int32] = []
        cut = np.zeros(len(batch), dtype=np.int32)
        second_segment = np.full(len(batch), -1, dtype=np.int32)
        errors: dict[int, PoolhouseError] = {}
        told: dict[tuple[int, type[PoolhouseError], str | None], list[PoolhouseError]] = {}
        pairs = Pairs(model.pair_format)
        for item, (text, owner) in enumerate(zip(batch.inputs, batch.owner, strict=True)):
            try:
                options = batch.options[owner]
                if options.pair is None:
                    ids, cut[item] = sequence_of(model, text, options)
                else:
                    pair = pairs.of(owner, options.pair, text)
                    ids, second_segment[item], cut[item] = pair.ids, pair.second_segment, pair.cut_tokens
            except PoolhouseError as error:
                # Of a request's many like errors the first are told; each other one is a reference in the message, no error more.
                alike = told.setdefault((id(batch.requests[owner]), type(error), error.param), [])
                if len(alike) < SHOWN:
                    alike.append(error.with_traceback(None))
                errors[item] = alike[-1]
                ids = _NO_TOKENS
            sequences.append(ids)
        owners = np.asarray(batch.owner, dtype=np.int32)
        codes = np.asarray([options.pooling.code for options in batch.options], dtype=np.uint8)
        return TokenBatch(
            fingerprint=model.fingerprint,
            token_ids=np.concatenate(sequences) if sequences else _NO_TOKENS,
            offsets=offsets_of([len(ids) for ids in sequences]),
            pooling=codes[owners],
            second_segment=second_segment,
            cut_tokens=cut,
            owner=owners,
            requests=batch.requests,
            errors=errors,
        )

    def shown(
        self, model: str, content: Input, add_special: bool, parse_special: bool, *, with_pieces: bool
    ) -> ShownTokens:
        """Return the tokens of one content, as ``POST /tokenize`` shows them.

        Raises:
            InvalidRequest: an id in a mixed content is outside the vocabulary.
        """
        tokenized = self.models[model]
        vocabulary = tokenized.vocabulary
        parts: Sequence[int | str] | Int32 = [content] if isinstance(content, str) else content
        options = TextOptions(PoolingType.NONE, parse_special=parse_special)
        ids = _mixed(tokenized, parts, options) if len(parts) else _NO_TOKENS
        if add_special:
            around = (np.asarray(special, dtype=np.int32) for special in (vocabulary.prefix, tokenized.suffix))
            ids = np.concatenate([next(around), ids, next(around)])
        if not with_pieces:
            return ShownTokens(ids)
        distinct = np.unique(ids)
        return ShownTokens(ids, distinct, [vocabulary.piece(token_id) for token_id in distinct.tolist()])

    def tokens(self, model: str, content: Input, add_special: bool, parse_special: bool) -> list[tuple[int, bytes]]:
        """Return the (id, piece) pairs of one content; raises as ``shown``."""
        shown = self.shown(model, content, add_special, parse_special, with_pieces=True)
        pieces = dict(zip(shown.distinct.tolist(), shown.pieces, strict=True))
        return [(token_id, pieces[token_id]) for token_id in shown.ids.tolist()]

    def text(self, model: str, ids: Sequence[int] | Int32) -> str:
        """Return the text of ``ids``.

        Raises:
            InvalidRequest: an id is outside the vocabulary.
        """
        tokenized = self.models[model]
        return tokenized.vocabulary.detokenize(_checked_ids(tokenized, ids))


_NO_TOKENS: Int32 = np.zeros(0, dtype=np.int32)


def _check_room(
    name: str, config: ModelConfig, vocabulary: Vocabulary, specials: int, max_tokens: int, limit: str
) -> None:
    """Check that a token of text fits beside the special tokens, and beside each prompt."""
    if max_tokens < specials + 1:
        raise ConfigError(
            f"{limit} is {max_tokens}, which leaves no room for a text: the special tokens take {specials}; "
            f"set at least {specials + 1}"
        )
    for key, prompt in config.prompts.items():
        least = specials + len(vocabulary.tokenize(prompt, config.parse_special)) + 1
        if max_tokens < least:
            raise ConfigError(
                f"models.{name}.prompts.{key} leaves no room for a text: with the special tokens it has {least - 1} tokens, "
                f"and {limit} is {max_tokens}; shorten the prompt, or allow at least {least}"
            )


def prompt_of(config: ModelConfig, name: str | None, param: str = "input_type") -> str:
    """Return the configured prompt of that name; no name is no prompt.

    Raises:
        InvalidRequest: the model has prompts, but none of that name.
    """
    if name is None or (not config.prompts and name in _COMMON_INPUT_TYPES):
        return ""
    wanted = _COMMON_INPUT_TYPES.get(name, name)
    for candidate in (name, wanted):
        if candidate in config.prompts:
            return config.prompts[candidate]
    known = ", ".join(config.prompts) or "none"
    raise InvalidRequest(
        f"the model has no prompt named {name!r}{nearest(name, config.prompts)}; its prompts: {known}", param
    )


# The vendors' names of the two sides of retrieval, so that one configured prompt serves every dialect.
_COMMON_INPUT_TYPES = {
    "query": "query",
    "document": "document",
    "passage": "document",
    "search_query": "query",
    "search_document": "document",
    "retrieval.query": "query",
    "retrieval.passage": "document",
}


def sequence_of(model: TokenizedModel, text: Input, options: TextOptions) -> tuple[Int32, int]:
    """Return the ids of one input, int32 ``[n_tokens]``, and how many tokens were cut.

    Raises:
        InputTooLong: it is too long and the request did not ask for truncation.
        InvalidRequest: an id is outside the vocabulary, or there is no token at all.
    """
    vocabulary = model.vocabulary
    prefix, suffix = vocabulary.prefix, model.suffix
    if isinstance(text, str):
        content = vocabulary.tokenize(options.prompt + text, options.parse_special)
    elif isinstance(text, list) and any(isinstance(part, str) for part in text):
        content = _mixed(model, text, options)
        if not isinstance(text[0], str):
            prefix, _ = _worn_specials(content, vocabulary.prefix, ())
            content = content[len(prefix) :]
    else:
        content = _checked_ids(model, text)
        prefix, suffix = _worn_specials(content, vocabulary.prefix, suffix)
        content = content[len(prefix) : len(content) - len(suffix)]
    room = model.max_tokens - len(prefix) - len(suffix)
    prompt = _NO_TOKENS
    if options.prompt and isinstance(text, str) and _may_be_cut(len(content), room, options):
        prompt = vocabulary.tokenize(options.prompt, options.parse_special)
    wanted = len(content)
    if options.content_tokens is not None:
        wanted = min(wanted, options.content_tokens + len(prompt))
    total = len(prefix) + wanted + len(suffix)
    if total == 0:
        raise InvalidRequest("the input has no tokens; send at least one")
    if wanted > room and options.truncate is Truncate.NONE:
        raise InputTooLong(
            f"the input has {total} tokens and the model takes at most {model.max_tokens}, so it is too large; "
            'shorten it, or send "truncate": "end" or "start"',
            n_prompt_tokens=total,
            n_ctx=model.max_tokens,
        )
    if wanted > room <= len(prompt):
        # At start-up it had room, with special tokens parsed as the model's configuration says.
        raise InputTooLong(
            f"the prompt has {len(prompt)} tokens here and leaves no room for a text; leave out parse_special or the prompt",
            "parse_special",
            n_prompt_tokens=total,
            n_ctx=model.max_tokens,
        )
    cut = len(content) - min(wanted, room)
    if cut and options.truncate is Truncate.START:
        own = content[len(prompt) :]
        if len(prompt) and not np.array_equal(content[: len(prompt)], prompt):
            # A token reaches from the prompt into the text, so the text's own tokens are what can be cut.
            assert isinstance(text, str)
            own = vocabulary.tokenize(text, options.parse_special)
        kept = min(len(own), min(wanted, room) - len(prompt))
        cut = len(own) - kept
        content = np.concatenate([prompt, own[cut:]])
    elif cut:
        content = content[: len(content) - cut]
    if not prefix and not suffix:
        return content, cut
    ids = np.empty(len(prefix) + len(content) + len(suffix), dtype=np.int32)
    ids[: len(prefix)] = prefix
    ids[len(prefix) : len(prefix) + len(content)] = content
    ids[len(prefix) + len(content) :] = suffix
    return ids, cut


def _may_be_cut(tokens: int, room: int, options: TextOptions) -> bool:
    return tokens > room or (options.content_tokens is not None and tokens > options.content_tokens)


def _checked_ids(model: TokenizedModel, ids: Sequence[int | str] | Int32) -> Int32:
    array = np.asarray(ids, dtype=np.int64)
    outside = (array < 0) | (array >= model.vocabulary.size)
    if outside.any():
        raise InvalidRequest(
            f"token id {int(array[outside][0])} is outside the model's vocabulary (0 to {model.vocabulary.size - 1}); "
            "the ids are another model's. LangChain's OpenAIEmbeddings sends OpenAI's ids unless "
            "check_embedding_ctx_length=False; send texts, or ids from POST /tokenize"
        )
    return array.astype(np.int32)


def _mixed(model: TokenizedModel, parts: Sequence[int | str] | Int32, options: TextOptions) -> Int32:
    if isinstance(parts, np.ndarray):
        return _checked_ids(model, parts)
    pieces: list[Int32] = []
    # Runs of ids are checked in one array: a call for each of a million ids takes seconds.
    for is_text, run in itertools.groupby(parts, key=lambda part: isinstance(part, str)):
        if is_text:
            pieces.extend(model.vocabulary.tokenize(str(part), options.parse_special) for part in run)
        else:
            pieces.append(_checked_ids(model, list(run)))
    return np.concatenate(pieces)


def _worn_specials(
    ids: Int32, prefix: tuple[int, ...], suffix: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return those of prefix and suffix that the client's ids already have, so that truncation keeps them."""
    worn_prefix = prefix if prefix and tuple(ids[: len(prefix)].tolist()) == prefix else ()
    rest = ids[len(worn_prefix) :]
    worn_suffix = suffix if suffix and tuple(rest[-len(suffix) :].tolist()) == suffix else ()
    return worn_prefix, worn_suffix

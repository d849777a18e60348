from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from cluster.calls import Input
from cluster.config import ModelConfig, Truncate
from cluster.engine.fake import FakeVocabulary, fake_facts
from cluster.errors import ConfigError, InputTooLong, InvalidRequest
from cluster.texts import TextBatch, TextOptions
from cluster.tokenization import TokenizedModel, Tokenizer, prompt_of, sequence_of
from cluster.types import Int32, PoolingType, RequestFacts

MEAN = PoolingType.MEAN
CLS, SEP, EOS = 101, 102, 103


class _WithEndToken(FakeVocabulary):
    """The fake vocabulary of a model that knows an end token and does not add it."""

    prefix = ()
    suffix = ()
    eos = EOS


def _words(text: str) -> list[int]:
    ids: list[int] = FakeVocabulary().tokenize(text).tolist()
    return ids


def _model(
    vocabulary: FakeVocabulary | None = None, context_tokens: int | None = None, **config: Any
) -> TokenizedModel:
    model_config = ModelConfig(source="fake", **config)
    return TokenizedModel.create("m", model_config, fake_facts(), "f", vocabulary or FakeVocabulary(), context_tokens)


def _sequence(text: Input, model: TokenizedModel | None = None, **options: Any) -> tuple[list[int], int]:
    ids, cut = sequence_of(model or _model(), text, TextOptions(MEAN, **options))
    assert ids.dtype == np.int32
    listed: list[int] = ids.tolist()
    return listed, cut


class TestSequences:
    def test_a_text_stands_between_the_special_tokens(self) -> None:
        assert _sequence("one two") == ([CLS, *_words("one two"), SEP], 0)

    def test_a_prompt_stands_before_the_text(self) -> None:
        assert _sequence("one", prompt="query: ")[0] == [CLS, *_words("query: one"), SEP]

    def test_ids_are_taken_as_they_are(self) -> None:
        assert _sequence([5, 6, 7], prompt="query: ") == ([5, 6, 7], 0)
        assert _sequence([CLS, 5, SEP])[0] == [CLS, 5, SEP]

    def test_a_mixed_prompt_that_begins_with_text_gets_both_special_tokens(self) -> None:
        assert _sequence(["one", 5, "two"])[0] == [CLS, *_words("one"), 5, *_words("two"), SEP]

    def test_a_mixed_prompt_that_begins_with_an_id_gets_no_prefix(self) -> None:
        assert _sequence([5, "one"])[0] == [5, *_words("one"), SEP]

    def test_special_tokens_in_a_text_are_text_unless_asked(self) -> None:
        assert _sequence("CLS")[0] == [CLS, *_words("CLS"), SEP]
        assert _sequence("CLS", parse_special=True)[0] == [CLS, CLS, SEP]
        assert _sequence([7, "SEP"], parse_special=True)[0] == [7, SEP, SEP]

    @pytest.mark.parametrize("ids", [[-1], [5, 50_000], [2**31 - 1], ["a", 50_000], [-1, "a"]])
    def test_an_id_outside_the_vocabulary_is_refused(self, ids: Input) -> None:
        with pytest.raises(
            InvalidRequest, match=r"outside the model's vocabulary \(0 to 49999\).*check_embedding_ctx_length"
        ):
            _sequence(ids)

    def test_no_token_at_all_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="no tokens"):
            _sequence(" ", _model(_WithEndToken()))

    def test_white_space_alone_is_its_special_tokens(self) -> None:
        assert _sequence("  ") == ([CLS, SEP], 0)


class TestEndToken:
    @pytest.mark.parametrize(("append_eos", "expected"), [(None, []), (True, [EOS]), (False, [])])
    def test_the_configuration_settles_the_end_token(self, append_eos: bool | None, expected: list[int]) -> None:
        model = _model(_WithEndToken(), append_eos=append_eos)
        assert _sequence("one", model)[0] == [*_words("one"), *expected]

    def test_an_end_token_that_is_there_already_is_not_added_again(self) -> None:
        vocabulary = _WithEndToken()
        vocabulary.suffix = (EOS,)
        assert _model(vocabulary, append_eos=True).suffix == (EOS,)

    def test_a_model_without_an_end_token_gets_none(self) -> None:
        assert _model(append_eos=True).suffix == (SEP,)

    def test_false_takes_the_end_of_the_gguf_away(self) -> None:
        assert _sequence("one", _model(append_eos=False))[0] == [CLS, *_words("one")]


class TestTruncation:
    TEXT = "a b c d e f"

    def test_nothing_is_cut_unless_asked_and_the_error_gives_both_lengths(self) -> None:
        with pytest.raises(InputTooLong, match="8 tokens and the model takes at most 5") as caught:
            _sequence(self.TEXT, _model(max_tokens=5))
        assert caught.value.extra == {"n_prompt_tokens": 8, "n_ctx": 5}

    def test_the_end_is_cut_and_the_special_tokens_stay(self) -> None:
        ids, cut = _sequence(self.TEXT, _model(max_tokens=5), truncate=Truncate.END)
        assert (ids, cut) == ([CLS, *_words("a b c"), SEP], 3)

    def test_the_start_is_cut_and_the_special_tokens_stay(self) -> None:
        ids, cut = _sequence(self.TEXT, _model(max_tokens=5), truncate=Truncate.START)
        assert (ids, cut) == ([CLS, *_words("d e f"), SEP], 3)

    @pytest.mark.parametrize("truncate", list(Truncate))
    def test_the_longest_text_that_fits_is_left_whole(self, truncate: Truncate) -> None:
        ids, cut = _sequence(self.TEXT, _model(max_tokens=8), truncate=truncate)
        assert (ids, cut) == ([CLS, *_words(self.TEXT), SEP], 0)

    @pytest.mark.parametrize(
        ("ids", "truncate", "expected"),
        [
            ([CLS, 5, 6, 7, SEP], Truncate.END, [CLS, 5, SEP]),
            ([CLS, 5, 6, 7, SEP], Truncate.START, [CLS, 7, SEP]),
            ([5, 6, 7, 8, SEP], Truncate.END, [5, 6, SEP]),
            ([5, 6, 7, 8, 9], Truncate.END, [5, 6, 7]),
            ([5, 6, 7, 8, 9], Truncate.START, [7, 8, 9]),
        ],
    )
    def test_special_tokens_that_a_clients_ids_have_stay(
        self, ids: list[int], truncate: Truncate, expected: list[int]
    ) -> None:
        assert _sequence(ids, _model(max_tokens=3), truncate=truncate) == (expected, 2)

    def test_the_shortest_of_all_limits_counts(self) -> None:
        assert _model().max_tokens == 512
        assert _model(max_tokens=100).max_tokens == 100
        assert _model(max_tokens=100, context_tokens=50).max_tokens == 50
        assert _model(max_tokens=10_000).max_tokens == 512


class _Joining(FakeVocabulary):
    """Joins a prompt's last word with a text that follows it at once, as byte-pair vocabularies do."""

    prefix = ()
    suffix = (SEP,)


class TestTruncationBesidePrompts:
    TEXT = "a b c d e f"
    PROMPT = "query: "

    def test_the_start_of_the_text_is_cut_and_the_prompt_stays(self) -> None:
        ids, cut = _sequence(self.TEXT, _model(max_tokens=6), truncate=Truncate.START, prompt=self.PROMPT)
        assert (ids, cut) == ([CLS, *_words("query: e f"), SEP], 4)

    def test_the_end_of_the_text_is_cut_and_the_prompt_stays(self) -> None:
        ids, cut = _sequence(self.TEXT, _model(max_tokens=6), truncate=Truncate.END, prompt=self.PROMPT)
        assert (ids, cut) == ([CLS, *_words("query: a b"), SEP], 4)

    def test_a_prompt_that_runs_into_the_text_stays_whole(self) -> None:
        ids, cut = _sequence(self.TEXT, _model(_Joining(), max_tokens=4), truncate=Truncate.START, prompt="x pre")
        assert (ids, cut) == ([*_words("x pre"), *_words("f"), SEP], 5)

    @pytest.mark.parametrize("truncate", list(Truncate))
    @pytest.mark.parametrize("seed", range(20))
    def test_what_is_kept_is_specials_prompt_and_one_stretch_of_the_text(self, truncate: Truncate, seed: int) -> None:
        chance = random.Random(seed)
        text = [f"w{chance.randrange(50)}" for _ in range(chance.randrange(1, 30))]
        prompt = " ".join(f"p{chance.randrange(50)}" for _ in range(chance.randrange(5)))
        specials = 2 + len(_words(prompt))
        max_tokens = specials + chance.randrange(1, 30)
        cap = chance.choice([None, chance.randrange(1, 30)])
        fits = min(len(text), cap or len(text))
        model = _model(max_tokens=max_tokens)
        options: dict[str, Any] = {"truncate": truncate, "prompt": prompt and prompt + " ", "content_tokens": cap}
        if truncate is Truncate.NONE and specials + fits > max_tokens:
            with pytest.raises(InputTooLong):
                _sequence(" ".join(text), model, **options)
            return
        kept = min(fits, max_tokens - specials)
        words = text[len(text) - kept :] if truncate is Truncate.START else text[:kept]
        ids, cut = _sequence(" ".join(text), model, **options)
        assert ids == [CLS, *_words(prompt), *_words(" ".join(words)), SEP]
        assert cut == len(text) - kept

    def test_parsing_special_tokens_otherwise_than_configured_may_leave_no_room(self) -> None:
        class Spelled(FakeVocabulary):
            def tokenize(self, text: str, parse_special: bool = False) -> Int32:
                return super().tokenize(text if parse_special else text.replace("SEP", "S E P"), parse_special)

        model = _model(Spelled(), max_tokens=5, prompts={"query": "SEP "}, parse_special=True)
        with pytest.raises(InputTooLong, match="leaves no room for a text") as caught:
            _sequence("a b c d", model, truncate=Truncate.END, prompt="SEP ", parse_special=False)
        assert caught.value.param == "parse_special"

    @pytest.mark.parametrize("truncate", [Truncate.START, Truncate.END])
    def test_special_tokens_at_the_front_of_a_mixed_prompt_stay(self, truncate: Truncate) -> None:
        ids, cut = _sequence([CLS, "a b c d"], _model(max_tokens=4), truncate=truncate)
        kept = "c d" if truncate is Truncate.START else "a b"
        assert (ids, cut) == ([CLS, *_words(kept), SEP], 2)


class TestRoom:
    @pytest.mark.parametrize("max_tokens", [1, 2])
    def test_a_longest_sequence_without_room_for_text_is_refused(self, max_tokens: int) -> None:
        with pytest.raises(ConfigError, match=rf"models\.m\.max_tokens is {max_tokens}.*at least 3"):
            _model(max_tokens=max_tokens)

    def test_one_token_beside_the_special_ones_is_enough(self) -> None:
        model = _model(max_tokens=3)
        assert _sequence("a b c", model, truncate=Truncate.END) == ([CLS, *_words("a"), SEP], 2)

    def test_an_encoders_context_without_room_is_refused_by_its_key(self) -> None:
        with pytest.raises(ConfigError, match=r"encoders\.e\.context_tokens is 2"):
            TokenizedModel.create(
                "m",
                ModelConfig(source="fake"),
                fake_facts(),
                "f",
                FakeVocabulary(),
                2,
                "encoders.e.context_tokens",
            )

    def test_a_prompt_that_leaves_no_room_is_refused_by_its_key(self) -> None:
        with pytest.raises(ConfigError, match=r"models\.m\.prompts\.query leaves no room.*at least 5"):
            _model(max_tokens=4, prompts={"query": "query: "})
        assert _model(max_tokens=5, prompts={"query": "query: "}).max_tokens == 5


class TestPrompts:
    PROMPTS: dict[str, str] = {"query": "query: ", "document": "passage: ", "code": "code: "}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("name", "prompt"),
        [
            (None, ""),
            ("query", "query: "),
            ("code", "code: "),
            ("passage", "passage: "),
            ("search_query", "query: "),
            ("search_document", "passage: "),
            ("retrieval.query", "query: "),
            ("retrieval.passage", "passage: "),
        ],
    )
    def test_vendors_names_find_the_configured_prompt(self, name: str | None, prompt: str) -> None:
        assert prompt_of(ModelConfig(source="fake", prompts=self.PROMPTS), name) == prompt

    def test_a_configured_name_wins_over_the_vendors(self) -> None:
        config = ModelConfig(source="fake", prompts={"document": "d: ", "passage": "p: "})
        assert prompt_of(config, "passage") == "p: "

    def test_a_model_without_prompts_takes_the_common_names_in_silence(self) -> None:
        assert prompt_of(ModelConfig(source="fake"), "search_query") == ""

    @pytest.mark.parametrize("param", ["input_type", "prompt_name"])
    def test_an_unknown_name_gets_the_nearest_and_all(self, param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            prompt_of(ModelConfig(source="fake", prompts=self.PROMPTS), "cod", param)
        assert caught.value.message == (
            "the model has no prompt named 'cod' (did you mean 'code'?); its prompts: query, document, code"
        )
        assert caught.value.param == param

    def test_an_unknown_name_is_refused_without_prompts_too(self) -> None:
        with pytest.raises(InvalidRequest, match="its prompts: none"):
            prompt_of(ModelConfig(source="fake"), "haiku")


def _batch(inputs: Sequence[Input], request: str = "r", **options: Any) -> TextBatch:
    return TextBatch("m", list(inputs), [0] * len(inputs), [TextOptions(MEAN, **options)], [RequestFacts(request)])


class TestBatches:
    def test_items_are_packed_one_after_the_other(self) -> None:
        batch = Tokenizer({"m": _model()}).tokenize(_batch(["one two", [5, 6], "three"]))
        assert batch.offsets.tolist() == [0, 4, 6, 9]
        assert batch.ids(1).tolist() == [5, 6]
        assert batch.token_ids.dtype == np.int32
        assert batch.pooling.tolist() == [MEAN.code] * 3
        assert batch.fingerprint == "f"
        assert batch.errors == {}

    def test_a_bad_item_carries_its_own_error_and_no_token(self) -> None:
        batch = Tokenizer({"m": _model(max_tokens=4)}).tokenize(_batch(["one", [99_999], "a b c d", "two"]))
        assert batch.lengths.tolist() == [3, 0, 0, 3]
        assert {item: type(error) for item, error in batch.errors.items()} == {1: InvalidRequest, 2: InputTooLong}

    def test_of_thousands_of_bad_items_the_first_of_each_request_have_errors_of_their_own(self) -> None:
        one, other = (_batch([[99_000 + item] for item in range(1_000)], name) for name in ("one", "other"))
        batch = Tokenizer({"m": _model()}).tokenize(TextBatch.concatenate([one, other]))
        assert sorted(batch.errors) == list(range(2_000))
        for first in (0, 1_000):
            messages = [batch.errors[first + item].message for item in range(1_000)]
            assert all(f"id {99_000 + item} is" in message for item, message in enumerate(messages[:16]))
            assert len({id(batch.errors[first + item]) for item in range(1_000)}) == 16

    def test_what_was_cut_is_counted_for_each_item(self) -> None:
        batch = Tokenizer({"m": _model(max_tokens=4)}).tokenize(_batch(["a", "a b c d"], truncate=Truncate.END))
        assert batch.cut_tokens.tolist() == [0, 2]

    def test_requests_of_one_message_keep_their_own_options(self) -> None:
        one = _batch(["a"], "one", prompt="query: ")
        other = TextBatch(
            "m", ["a", "b"], [0, 0], [TextOptions(PoolingType.CLS, parse_special=True)], [RequestFacts("other")]
        )
        joined = TextBatch.concatenate([one, other])
        assert (len(joined), joined.weight, joined.owner) == (3, 3 + len("query: "), [0, 1, 1])
        batch = Tokenizer({"m": _model()}).tokenize(joined)
        assert batch.ids(0).tolist() == [CLS, *_words("query: a"), SEP]
        assert batch.ids(1).tolist() == [CLS, *_words("a"), SEP]
        assert batch.pooling.tolist() == [MEAN.code, PoolingType.CLS.code, PoolingType.CLS.code]
        assert [request.request_id for request in batch.requests] == ["one", "other"]

    def test_one_message_is_joined_without_a_copy(self) -> None:
        batch = _batch(["a"])
        assert TextBatch.concatenate([batch]) is batch


class TestShownTokens:
    @pytest.fixture
    def tokenizer(self) -> Tokenizer:
        return Tokenizer({"m": _model()})

    def test_ids_come_with_their_pieces(self, tokenizer: Tokenizer) -> None:
        shown = tokenizer.tokens("m", "one two", add_special=False, parse_special=False)
        assert shown == list(zip(_words("one two"), [b"one", b"two"], strict=True))

    def test_special_tokens_are_added_when_asked(self, tokenizer: Tokenizer) -> None:
        shown = tokenizer.tokens("m", ["one", 5], add_special=True, parse_special=False)
        assert [token for token, _ in shown] == [CLS, *_words("one"), 5, SEP]

    def test_pieces_are_looked_up_once_for_each_different_id_and_only_when_asked(self) -> None:
        asked: list[int] = []

        class Noting(FakeVocabulary):
            def piece(self, token_id: int) -> bytes:
                asked.append(token_id)
                return super().piece(token_id)

        tokenizer = Tokenizer({"m": _model(Noting())})
        plain = tokenizer.shown("m", "one two one", False, False, with_pieces=False)
        assert (plain.ids.tolist(), plain.ids.dtype) == (_words("one two one"), np.int32)
        assert asked == plain.pieces == []
        shown = tokenizer.shown("m", "one two one", True, False, with_pieces=True)
        assert shown.ids.tolist() == [CLS, *_words("one two one"), SEP]
        assert asked == shown.distinct.tolist() == sorted({CLS, SEP, *_words("one two")})
        assert shown.pieces == [FakeVocabulary.piece(tokenizer.models["m"].vocabulary, token) for token in asked]  # type: ignore[arg-type]

    @pytest.mark.parametrize("content", ["", []])
    def test_nothing_has_no_tokens(self, tokenizer: Tokenizer, content: Input) -> None:
        assert tokenizer.tokens("m", content, add_special=False, parse_special=True) == []

    def test_ids_become_text_again(self, tokenizer: Tokenizer) -> None:
        ids: Int32 = np.asarray([token for token, _ in tokenizer.tokens("m", "one two", False, False)], dtype=np.int32)
        assert tokenizer.text("m", ids.tolist()) == "one two"
        assert tokenizer.text("m", []) == ""

    def test_an_id_outside_the_vocabulary_has_no_text(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(InvalidRequest, match="token id 50000 is outside"):
            tokenizer.text("m", [50_000])

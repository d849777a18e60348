from __future__ import annotations

import numpy as np
import pytest

from cluster.config import Truncate
from cluster.engine.fake import FakeVocabulary
from cluster.engine.llama import LlamaVocabulary
from cluster.errors import InputTooLong, InvalidRequest
from cluster.pairs import FlagFormat, Pair, Pairs, pair_format

TEN_WORDS = " ".join(f"word{index}" for index in range(10))
QUERY, DOCUMENT = "which city has a river", "paris is a city, 42!"


class CountingVocabulary(FakeVocabulary):
    def __init__(self) -> None:
        super().__init__()
        self.tokenized: list[str] = []

    def tokenize(self, text: str, parse_special: bool = False) -> np.ndarray:
        self.tokenized.append(text)
        return super().tokenize(text, parse_special)


@pytest.mark.parametrize(("name", "between", "after"), [("bert", 1, 1), ("xlm-roberta", 2, 1), ("modern-bert", 2, 1)])
def test_special_tokens_stand_where_the_flags_put_them(
    name: str, between: int, after: int, vocabularies: dict[str, LlamaVocabulary]
) -> None:
    vocabulary = vocabularies[name]
    query, document = vocabulary.tokenize(QUERY).tolist(), vocabulary.tokenize(DOCUMENT).tolist()
    made = pair_format(vocabulary, 128).begin(Pair(QUERY)).end(DOCUMENT)
    expected = [vocabulary.bos, *query, *[vocabulary.sep] * between, *document, *[vocabulary.eos] * after]
    assert vocabulary.eos == vocabulary.sep
    assert made.ids.tolist() == expected
    assert made.second_segment == 1 + len(query) + between
    assert made.cut_tokens == 0


def test_without_an_end_token_the_separator_stands_for_it() -> None:
    vocabulary = FakeVocabulary()
    made = FlagFormat(vocabulary, 64, add_eos=True).begin(Pair("one")).end("two")
    one, two = vocabulary.tokenize("one").tolist(), vocabulary.tokenize("two").tolist()
    assert made.ids.tolist() == [101, *one, 102, 102, *two, 102]


def test_the_configuration_may_add_the_end_token() -> None:
    vocabulary = FakeVocabulary()
    without = pair_format(vocabulary, 64).begin(Pair("one")).end("two").ids
    added = pair_format(vocabulary, 64, append_eos=True).begin(Pair("one")).end("two").ids
    assert without.tolist()[-1] != 102
    assert added.tolist()[-1] == 102


def test_text_that_spells_a_special_token_stays_text(vocabularies: dict[str, LlamaVocabulary]) -> None:
    vocabulary = vocabularies["bert"]
    made = pair_format(vocabulary, 128).begin(Pair("a [SEP] b")).end("c [CLS] d [SEP]")
    ids = made.ids.tolist()
    assert ids.count(vocabulary.bos) == 1
    assert ids.count(vocabulary.sep) == 2


@pytest.mark.parametrize(("truncate", "kept"), [(Truncate.END, slice(0, 5)), (Truncate.START, slice(5, 10))])
def test_only_the_document_is_cut(truncate: Truncate, kept: slice) -> None:
    vocabulary = FakeVocabulary()
    made = pair_format(vocabulary, 9).begin(Pair("one two", truncate=truncate)).end(TEN_WORDS)
    query, document = vocabulary.tokenize("one two").tolist(), vocabulary.tokenize(TEN_WORDS).tolist()
    assert made.ids.tolist() == [101, *query, 102, *document[kept]]
    assert made.cut_tokens == 5


def test_a_cap_on_the_document_cuts_without_being_asked_to_truncate() -> None:
    made = pair_format(FakeVocabulary(), 64).begin(Pair("one two", document_tokens=3)).end(TEN_WORDS)
    assert (len(made.ids), made.cut_tokens) == (4 + 3, 7)


def test_a_document_that_is_too_long_is_refused_with_both_lengths() -> None:
    begun = pair_format(FakeVocabulary(), 9).begin(Pair("one two"))
    with pytest.raises(InputTooLong) as error:
        begun.end(TEN_WORDS)
    assert error.value.extra == {"n_prompt_tokens": 14, "n_ctx": 9}


def test_a_query_that_leaves_no_room_is_refused_with_both_lengths() -> None:
    with pytest.raises(InputTooLong) as error:
        pair_format(FakeVocabulary(), 9).begin(Pair(TEN_WORDS, truncate=Truncate.END, query_param="text_1"))
    assert error.value.param == "text_1"
    assert error.value.extra == {"n_prompt_tokens": 12, "n_ctx": 9}


def test_an_empty_document_is_a_pair_too() -> None:
    assert pair_format(FakeVocabulary(), 9).begin(Pair("one")).end("").ids.tolist()[-1] == 102


def test_an_instruction_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="takes no instruction") as error:
        pair_format(FakeVocabulary(), 9).begin(Pair("one", instruction="judge"))
    assert error.value.param == "instruction"


def test_a_request_finds_what_is_wrong_with_its_query_once() -> None:
    vocabulary = CountingVocabulary()
    pairs = Pairs(pair_format(vocabulary, 9))
    for _ in range(3):
        with pytest.raises(InputTooLong):
            pairs.of(0, Pair(TEN_WORDS), "a document")
    assert vocabulary.tokenized == [TEN_WORDS]


def test_a_second_text_of_ids_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="send a string"):
        Pairs(pair_format(FakeVocabulary(), 9)).of(0, Pair("one"), [1, 2])


@pytest.mark.parametrize("cap", [1, 2])
def test_a_cap_below_any_pair_is_refused_by_its_field(cap: int) -> None:
    with pytest.raises(InvalidRequest, match=f"truncate_prompt_tokens is {cap}.*has 3 tokens") as error:
        pair_format(FakeVocabulary(), 9).begin(Pair("one", max_tokens=cap, truncate=Truncate.END))
    assert error.value.param == "truncate_prompt_tokens"


def test_a_query_above_the_requests_own_cap_is_not_laid_on_the_model() -> None:
    with pytest.raises(InputTooLong, match="the request asks for at most 6") as error:
        pair_format(FakeVocabulary(), 9).begin(Pair("a b c d", max_tokens=6, truncate=Truncate.END))
    assert (error.value.param, error.value.extra["n_ctx"]) == ("query", 6)


@pytest.mark.parametrize("truncate", [Truncate.END, Truncate.START])
@pytest.mark.parametrize("room", range(6, 18))
def test_whatever_is_cut_is_one_stretch_of_the_document(truncate: Truncate, room: int) -> None:
    vocabulary = FakeVocabulary()
    made = pair_format(vocabulary, room).begin(Pair("one two", truncate=truncate)).end(TEN_WORDS)
    document = vocabulary.tokenize(TEN_WORDS).tolist()
    kept = min(10, room - 4)
    stretch = document[10 - kept :] if truncate is Truncate.START else document[:kept]
    assert made.ids.tolist() == [101, *vocabulary.tokenize("one two").tolist(), 102, *stretch]
    assert made.cut_tokens == 10 - kept

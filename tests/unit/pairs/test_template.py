from __future__ import annotations

import pytest

from cluster.config import ModelConfig, Truncate
from cluster.engine.fake import fake_facts
from cluster.engine.llama import LlamaVocabulary
from cluster.errors import ConfigError, InputTooLong, InvalidRequest
from cluster.pairs import Pair, TemplateFormat, pair_format
from cluster.tokenization import TokenizedModel
from tests.support.ggufs.qwen3 import RERANK_TEMPLATE

QUERY, DOCUMENT = "which city has a river", "paris is a city with a river, 42 bridges!"
ROOM = 400


@pytest.fixture
def qwen3(vocabularies: dict[str, LlamaVocabulary]) -> LlamaVocabulary:
    return vocabularies["qwen3"]


def pasted(vocabulary: LlamaVocabulary, query: str, document: str, template: str = RERANK_TEMPLATE) -> list[int]:
    """What llama-server does: replace, then tokenize everything with special parsing on."""
    text = template.replace("{query}", query).replace("{document}", document)
    return vocabulary.tokenize(text, parse_special=True).tolist()


def made(
    vocabulary: LlamaVocabulary, query: str, document: str, max_tokens: int = ROOM, **options: object
) -> list[int]:
    return pair_format(vocabulary, max_tokens).begin(Pair(query, **options)).end(document).ids.tolist()


@pytest.mark.parametrize(
    ("query", "document"),
    [
        (QUERY, DOCUMENT),
        ("a", ""),
        ("  spaces  ", "  more \n\n lines \n"),
        ("<think>", "half </think> way"),
        ("naïve 中文", "🙂 emoji"),
    ],
)
def test_ids_are_llama_servers(query: str, document: str, qwen3: LlamaVocabulary) -> None:
    assert made(qwen3, query, document) == pasted(qwen3, query, document)


def test_a_template_that_begins_and_ends_with_text_is_filled(qwen3: LlamaVocabulary) -> None:
    template = "document: {document}<|im_end|>query: {query}, and {document} again"
    ids = TemplateFormat(qwen3, template, ROOM).begin(Pair(QUERY)).end(DOCUMENT).ids.tolist()
    assert ids == pasted(qwen3, QUERY, DOCUMENT, template)


@pytest.mark.parametrize("marker", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
@pytest.mark.parametrize("where", ["query", "document", "instruction"])
def test_no_text_becomes_a_special_token(where: str, marker: str, qwen3: LlamaVocabulary) -> None:
    texts = {"query": QUERY, "document": DOCUMENT, "instruction": "judge"}
    texts[where] = f"x {marker}\n{marker} y"
    ids = made(qwen3, texts["query"], texts["document"], instruction=texts["instruction"])
    (token,) = qwen3.tokenize(marker, parse_special=True).tolist()
    assert ids.count(token) == RERANK_TEMPLATE.count(marker)
    assert texts[where] in qwen3.detokenize(ids)


def test_a_query_that_holds_a_placeholder_is_not_filled(qwen3: LlamaVocabulary) -> None:
    text = qwen3.detokenize(made(qwen3, "show {document} and {query}", "secret"))
    assert text.count("secret") == 1
    assert "<Query>: show {document} and {query}\n" in text


def test_an_instruction_takes_the_place_of_the_templates_own(qwen3: LlamaVocabulary) -> None:
    template = RERANK_TEMPLATE.replace(
        "Given a web search query, retrieve relevant passages that answer the query", "find rivers"
    )
    assert made(qwen3, QUERY, DOCUMENT, instruction="find rivers") == pasted(qwen3, QUERY, DOCUMENT, template)


def test_a_template_without_an_instruct_line_takes_none(qwen3: LlamaVocabulary) -> None:
    without = TemplateFormat(qwen3, "{query}<|im_end|>{document}", ROOM)
    with pytest.raises(InvalidRequest, match="<Instruct>"):
        without.begin(Pair(QUERY, instruction="judge"))


@pytest.mark.parametrize("truncate", [Truncate.END, Truncate.START])
def test_only_the_document_is_cut_and_as_little_as_fits(truncate: Truncate, qwen3: LlamaVocabulary) -> None:
    document = " ".join(["river", "city", "paris", "zebra"] * 100)
    room = len(made(qwen3, QUERY, "")) + 40
    pair = pair_format(qwen3, room).begin(Pair(QUERY, truncate=truncate)).end(document)
    text = qwen3.detokenize(pair.ids)
    kept = text[text.index("<Document>: ") + 12 : text.rindex("<|im_end|>")]
    assert f"<Query>: {QUERY}\n" in text
    assert document.startswith(kept) if truncate is Truncate.END else document.endswith(kept)
    assert room - 8 < len(pair.ids) <= room
    assert pair.cut_tokens == len(made(qwen3, QUERY, document, 10_000)) - len(pair.ids)


def test_a_cap_counts_the_documents_own_tokens(qwen3: LlamaVocabulary) -> None:
    ids = made(qwen3, QUERY, "river river river river river", document_tokens=2)
    text = qwen3.detokenize(ids)
    kept = text[text.index("<Document>: ") + 12 : text.rindex("<|im_end|>")]
    assert len(qwen3.tokenize(kept)) == 2


def test_a_long_document_is_refused_without_truncation(qwen3: LlamaVocabulary) -> None:
    room = len(made(qwen3, QUERY, "")) + 10
    with pytest.raises(InputTooLong) as error:
        made(qwen3, QUERY, "river " * 50, room)
    assert error.value.extra["n_ctx"] == room


def test_a_query_that_leaves_no_room_is_refused(qwen3: LlamaVocabulary) -> None:
    with pytest.raises(InputTooLong) as error:
        made(qwen3, "river " * 500, "", truncate=Truncate.END)
    assert error.value.param == "query"


def test_the_second_text_begins_where_documents_part(qwen3: LlamaVocabulary) -> None:
    begun = pair_format(qwen3, ROOM).begin(Pair(QUERY))
    one, other = begun.end("paris"), begun.end("42 zebras")
    shared = min(one.second_segment, other.second_segment)
    assert one.ids[:shared].tolist() == other.ids[:shared].tolist()
    assert qwen3.detokenize(one.ids[:shared]).rstrip().endswith("<Document>:")


@pytest.mark.parametrize("truncate", list(Truncate))
def test_an_instruction_that_leaves_no_room_is_refused_by_its_field(truncate: Truncate, qwen3: LlamaVocabulary) -> None:
    with pytest.raises(InputTooLong, match=r"instruction has .* document included") as error:
        made(qwen3, QUERY, DOCUMENT, instruction="river " * 500, truncate=truncate)
    assert error.value.param == "instruction"


def test_the_shortest_pair_is_the_template_and_one_token(qwen3: LlamaVocabulary) -> None:
    assert pair_format(qwen3, ROOM).least_tokens == len(made(qwen3, "", "")) + 1


def test_a_template_that_leaves_no_room_is_refused_at_the_start(qwen3: LlamaVocabulary) -> None:
    least = pair_format(qwen3, ROOM).least_tokens
    config = ModelConfig(source="fake", max_tokens=least - 1)
    with pytest.raises(ConfigError, match=rf"models\.m\.max_tokens is {least - 1}.*at least {least} tokens"):
        TokenizedModel.create("m", config, fake_facts(), "f", qwen3)

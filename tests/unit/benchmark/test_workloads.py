from __future__ import annotations

from itertools import islice

import pytest

from cluster.benchmark.words import WORDS
from cluster.benchmark.workloads import WORKLOADS, Workload, bodies_of, texts_of
from tests.unit.benchmark.doubles import fields_of


def test_words_are_lower_case_and_none_stands_twice() -> None:
    assert len(set(WORDS)) == len(WORDS) > 500
    assert all(word.isascii() and word.isalpha() and word.islower() for word in WORDS)


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=list(WORKLOADS))
def test_texts_keep_to_the_workloads_lengths_and_never_repeat(workload: Workload) -> None:
    texts = list(islice(texts_of(workload, 3), 2000))
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) == workload.min_words
    assert max(lengths) == workload.max_words
    assert len(set(texts)) == len(texts)


def test_equal_seeds_give_equal_texts_and_others_do_not() -> None:
    first, again, other = (list(islice(texts_of(WORKLOADS["short"], seed), 50)) for seed in (1, 1, 2))
    assert first == again
    assert not set(first) & set(other)


def test_one_text_is_sent_as_a_string_and_several_as_a_list() -> None:
    assert isinstance(fields_of(next(bodies_of(WORKLOADS["short"], "m", 0)))["input"], str)
    batch = fields_of(next(bodies_of(WORKLOADS["batch"], "m", 0, {"lane": "bulk"})))
    assert len(batch["input"]) == 32
    assert (batch["model"], batch["lane"]) == ("m", "bulk")


def test_none_asks_for_token_matrices() -> None:
    assert fields_of(next(bodies_of(WORKLOADS["none"], "m", 0)))["pooling"] == "none"
    assert WORKLOADS["none"].accept == "application/octet-stream"


def test_rerank_sends_a_query_of_its_own_with_every_request() -> None:
    bodies = [fields_of(body) for body in islice(bodies_of(WORKLOADS["rerank"], "m", 0), 3)]
    assert len({body["query"] for body in bodies}) == 3
    assert all(len(body["documents"]) == 100 for body in bodies)

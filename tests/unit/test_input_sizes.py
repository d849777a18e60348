from __future__ import annotations

import pytest

from cluster.calls import Input
from cluster.input_sizes import InputSizes, sizes_of
from cluster.offload import INLINE_S
from cluster.pairs import Pair
from cluster.texts import TextBatch, TextOptions
from cluster.types import PoolingType, RequestFacts


@pytest.mark.parametrize(
    ("inputs", "characters", "ids"),
    [
        (["four", "東京"], [4, 2], [0, 0]),
        ([[5, 6, 7], [8]], [0, 0], [3, 1]),
        ([["four", 5, "two", 6]], [7], [2]),
        (["four", [5, 6], [7, "one"]], [4, 0, 3], [0, 2, 1]),
        ([], [], []),
    ],
)
def test_characters_and_ids_are_measured_apart(inputs: list[Input], characters: list[int], ids: list[int]) -> None:
    sizes = sizes_of(inputs)
    assert sizes.characters.tolist() == characters
    assert sizes.ids.tolist() == ids
    assert sizes.weight == sum(characters) + sum(ids)


def test_a_text_within_a_list_of_ids_weighs_all_its_characters() -> None:
    texts = TextBatch("m", [["x" * 40_000, 5]], [0], [TextOptions(PoolingType.MEAN)], [RequestFacts("a")])
    assert texts.weight == 40_001
    assert TextBatch.concatenate([texts, texts]).weight == 80_002


@pytest.mark.parametrize(
    "options",
    [
        TextOptions(PoolingType.RANK, pair=Pair("q" * 20_000)),
        TextOptions(PoolingType.RANK, pair=Pair("q", instruction="i" * 19_999)),
        TextOptions(PoolingType.MEAN, prompt="p" * 20_000),
    ],
)
def test_what_is_tokenized_before_a_text_is_part_of_the_work(options: TextOptions) -> None:
    texts = TextBatch("m", ["a", "b"], [0, 0], [options], [RequestFacts("a")])
    assert texts.weight == 40_002
    assert texts.cost_s > INLINE_S


def test_sizes_of_several_batches_stand_in_order() -> None:
    joined = InputSizes.concatenate([sizes_of(["a"]), sizes_of([[1, 2]])])
    assert (joined.characters.tolist(), joined.ids.tolist()) == ([1, 0], [0, 2])

from __future__ import annotations

import numpy as np
import pytest

from cluster.config import ModelConfig
from cluster.engine.fake import FakeEngine, FakeVocabulary, fake_facts
from cluster.errors import ModelLoadError
from cluster.evaluation.local import LocalModel
from cluster.tokenization import TokenizedModel
from cluster.types import Float32, Int32, Int64, PoolingType


class CountingEngine(FakeEngine):
    """Notes the size of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def encode(self, token_ids: Int32, offsets: Int64) -> Float32:
        self.calls.append(len(token_ids))
        return super().encode(token_ids, offsets)


def local(engine: FakeEngine, micro_batch_tokens: int, config: ModelConfig | None = None) -> LocalModel:
    config = config or ModelConfig(source="fake")
    model = TokenizedModel.create("fake", config, fake_facts(), "", FakeVocabulary())
    return LocalModel(model, engine, micro_batch_tokens)


TEXTS = [" ".join(f"w{i}" for i in range(1 + 7 * n % 11)) for n in range(60)]


def test_hidden_states_come_in_order_and_do_not_depend_on_the_batch() -> None:
    together = list(local(FakeEngine(), 32).hidden_states(TEXTS))
    alone = [next(iter(local(FakeEngine(), 32).hidden_states([text]))) for text in TEXTS]
    assert len(together) == len(TEXTS)
    assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))


def test_calls_keep_to_the_micro_batch() -> None:
    engine = CountingEngine()
    list(local(engine, 40).hidden_states(TEXTS))
    assert max(engine.calls) <= 40
    assert len(engine.calls) > 5


def test_texts_are_encoded_as_they_are_asked_for() -> None:
    engine = CountingEngine()
    states = local(engine, 16).hidden_states(TEXTS)
    next(states)
    # A window holds eight micro-batches and the text that fills it up.
    assert sum(engine.calls) <= 9 * 16


def test_a_long_text_is_cut_at_its_end_and_counted() -> None:
    model = local(FakeEngine(), 16, ModelConfig(source="fake", max_tokens=8))
    (hidden,) = model.hidden_states(["a b c d e f g h i"])
    assert len(hidden) == 8
    assert model.cut_tokens == 3
    assert [token.piece for token in model.tokens("a b c d e f g h i")] == ["[CLS]", *"abcdef", "[SEP]"]


def test_special_tokens_are_marked() -> None:
    tokens = LocalModel.fake().tokens("one two")
    assert [(token.piece, token.special) for token in tokens] == [
        ("[CLS]", True),
        ("one", False),
        ("two", False),
        ("[SEP]", True),
    ]


def test_facts_say_whether_an_end_token_closes_a_text() -> None:
    assert LocalModel.fake().facts.ends_with_token is True
    without = local(FakeEngine(), 16, ModelConfig(source="fake", append_eos=False))
    assert without.facts.ends_with_token is False
    assert without.facts.trained_pooling is PoolingType.MEAN


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="no file"):
        LocalModel.load(ModelConfig(source="/nowhere/model.gguf"))

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from cluster.engine.fake import FakeEngine, FakeVocabulary, fake_facts
from cluster.errors import EngineError
from cluster.types import Int32, Int64, PoolingType, offsets_of

_NATIVE_DEATH = """
import resource
import numpy as np
from cluster.engine.fake import FakeEngine
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
FakeEngine().encode(np.asarray([-1], dtype=np.int32), np.asarray([0, 1]))
print("still alive")
"""


class Died(BaseException):
    """Stands in for the end of the process."""


def _die() -> None:
    raise Died


def _packed(*sequences: list[int]) -> tuple[Int32, Int64]:
    ids = np.asarray([token_id for sequence in sequences for token_id in sequence], dtype=np.int32)
    return ids, offsets_of([len(sequence) for sequence in sequences])


def test_hidden_states_have_the_shape_and_type_of_an_engine_s() -> None:
    hidden = FakeEngine().encode(*_packed([5, 6, 7], [8]))
    assert hidden.shape == (4, fake_facts().dimensions)
    assert hidden.dtype == np.float32


def test_hidden_states_do_not_depend_on_the_rest_of_the_batch() -> None:
    engine = FakeEngine()
    together = engine.encode(*_packed([5, 6, 7], [8, 9], [5, 6, 7]))
    assert np.array_equal(together[3:5], engine.encode(*_packed([8, 9])))
    assert np.array_equal(together[:3], together[5:])


def test_hidden_states_tell_ids_and_positions_apart() -> None:
    rows = FakeEngine().encode(*_packed([5, 5, 6]))
    assert not np.allclose(rows[0], rows[1])
    assert not np.allclose(rows[1], rows[2])


def test_score_is_the_share_of_the_second_text_found_in_the_first() -> None:
    ids, offsets = _packed([1, 2, 3, 2, 9], [1, 2, 1, 2], [1, 2, 8, 9], [1, 2])
    scores = FakeEngine().score(ids, offsets, np.asarray([3, 2, 2, -1], dtype=np.int32))
    assert scores.dtype == np.float32
    assert scores.tolist() == [[0.5], [1.0], [0.0], [0.0]]


def test_scores_have_a_column_for_each_label() -> None:
    facts = dataclasses.replace(fake_facts(), labels=("no", "yes"))
    scores = FakeEngine(facts).score(*_packed([1, 2, 1, 2]), np.asarray([2], dtype=np.int32))
    assert scores.tolist() == [[1.0, 0.5]]


def test_score_without_a_head_is_refused_and_says_why() -> None:
    facts = dataclasses.replace(fake_facts(), pooling_types=(PoolingType.MEAN,), refused={PoolingType.RANK: "no head"})
    engine = FakeEngine(facts, abort=_die)
    with pytest.raises(EngineError, match="no classification head: no head"):
        engine.score(*_packed([1, 2]), np.asarray([1], dtype=np.int32))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(_packed(), id="nothing"),
        pytest.param(_packed([1], []), id="empty-sequence"),
        pytest.param(_packed([-1]), id="negative-id"),
        pytest.param(_packed([50_000]), id="id-past-the-vocabulary"),
        pytest.param(_packed([1] * 513), id="sequence-too-long"),
        pytest.param(_packed([1] * 512, [1]), id="call-too-long"),
        pytest.param(_packed(*[[1]] * 257), id="too-many-sequences"),
    ],
)
@pytest.mark.parametrize("method", ["encode", "score"])
def test_what_llama_cpp_would_not_survive_ends_the_process(call: tuple[Int32, Int64], method: str) -> None:
    engine = FakeEngine(max_micro_batch_tokens=512, abort=_die)
    extra = (np.full(len(call[1]) - 1, -1, dtype=np.int32),) if method == "score" else ()
    with pytest.raises(Died):
        getattr(engine, method)(*call, *extra)


def test_process_really_ends() -> None:
    done = subprocess.run([sys.executable, "-c", _NATIVE_DEATH], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT
    assert done.stdout == ""


def test_hook_that_returns_leaves_the_reason() -> None:
    calls: list[None] = []
    engine = FakeEngine(abort=lambda: calls.append(None))
    with pytest.raises(EngineError, match="outside the vocabulary"):
        engine.encode(*_packed([-1]))
    assert len(calls) == 1


def test_good_call_does_not_end_the_process() -> None:
    FakeEngine(abort=_die).encode(*_packed([1] * 512))


def test_closed_engine_refuses_calls() -> None:
    engine = FakeEngine(abort=_die)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.encode(*_packed([1]))
    with pytest.raises(EngineError, match="closed"):
        engine.score(*_packed([1]), np.asarray([-1], dtype=np.int32))


def test_micro_batch_holds_a_whole_sequence_unless_the_model_is_causal() -> None:
    causal = dataclasses.replace(fake_facts(), causal=True)
    assert FakeEngine(max_micro_batch_tokens=64).max_micro_batch_tokens == 512
    assert FakeEngine(max_micro_batch_tokens=1_024).max_micro_batch_tokens == 1_024
    assert FakeEngine(causal, max_micro_batch_tokens=64).max_micro_batch_tokens == 64
    # One long causal sequence is decoded in steps.
    assert len(FakeEngine(causal, max_micro_batch_tokens=64, abort=_die).encode(*_packed([1] * 100))) == 100


def test_shorter_context_is_kept() -> None:
    engine = FakeEngine(max_micro_batch_tokens=16, context_tokens=32, abort=_die)
    assert (engine.max_sequence_tokens, engine.max_micro_batch_tokens) == (32, 32)
    with pytest.raises(Died):
        engine.encode(*_packed([1] * 33))
    assert FakeEngine(context_tokens=10_000).max_sequence_tokens == 512


def test_call_takes_the_time_that_its_tokens_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("cluster.engine.fake.time.sleep", slept.append)
    FakeEngine(seconds_per_token=0.5).encode(*_packed([1, 2], [3]))
    FakeEngine().encode(*_packed([1, 2], [3]))
    assert slept == [1.5]


def test_words_become_the_same_ids_everywhere() -> None:
    one, other = FakeVocabulary(), FakeVocabulary()
    ids = one.tokenize("Beijing, the capital. Beijing")
    assert ids.dtype == np.int32
    assert len(ids) == 6
    assert ids[0] == ids[5]
    assert np.array_equal(ids, other.tokenize("Beijing, the capital. Beijing"))
    assert 1_000 <= ids.min() <= ids.max() < one.size


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_text_without_words_has_no_ids(text: str) -> None:
    assert FakeVocabulary().tokenize(text).tolist() == []


def test_special_tokens_are_parsed_only_when_asked() -> None:
    vocabulary = FakeVocabulary()
    assert vocabulary.bos in vocabulary.tokenize("[CLS] text", parse_special=True)
    assert vocabulary.bos not in vocabulary.tokenize("[CLS] text")


@pytest.mark.parametrize(
    ("text", "expected"), [("the capital", "the capital"), ("北京 東京", "北京 東京"), ("a\ud800b", "a ? b")]
)
def test_detokenized_text_is_the_words(text: str, expected: str) -> None:
    vocabulary = FakeVocabulary()
    assert vocabulary.detokenize(vocabulary.tokenize(text)) == expected


def test_unknown_id_has_a_piece() -> None:
    vocabulary = FakeVocabulary()
    assert vocabulary.piece(4_321) == b"<4321>"
    assert vocabulary.piece(vocabulary.bos) == b"[CLS]"


def test_prefix_and_suffix_are_the_flags() -> None:
    vocabulary = FakeVocabulary()
    assert vocabulary.prefix == ((vocabulary.bos,) if vocabulary.add_bos else ())
    assert vocabulary.suffix == ((vocabulary.sep,) if vocabulary.add_sep else ())


@pytest.mark.parametrize("part", [FakeEngine, FakeVocabulary])
def test_closing_twice_does_no_harm(part: Callable[[], FakeEngine | FakeVocabulary]) -> None:
    made = part()
    made.close()
    made.close()

from __future__ import annotations

import numpy as np
import pytest

from cluster.engine.checks import check_packed
from cluster.errors import EngineError
from cluster.types import offsets_of

_LIMITS = {"vocabulary_size": 100, "max_tokens": 16, "max_sequences": 3, "max_sequence_tokens": 8}


def _check(lengths: list[int], *, ids: list[int] | None = None, causal: bool = False, **limits: int) -> None:
    token_ids = np.arange(sum(lengths)) if ids is None else np.asarray(ids)
    check_packed(token_ids.astype(np.int32), offsets_of(lengths), causal=causal, **(_LIMITS | limits))


def test_call_at_every_limit_passes() -> None:
    _check([8, 7, 1])
    _check([2], ids=[0, 99])


@pytest.mark.parametrize(
    ("lengths", "why"),
    [
        ([], "has no sequence"),
        ([3, 0, 3], "a sequence of an engine call has no token"),
        ([0], "a sequence of an engine call has no token"),
        ([9], "a sequence has 9 tokens and the context holds 8"),
        ([8, 8, 1], "a call has 17 tokens and the micro-batch holds 16"),
        ([1, 1, 1, 1], "a call has 4 sequences and the context takes 3"),
    ],
)
def test_call_over_a_limit_names_it(lengths: list[int], why: str) -> None:
    with pytest.raises(EngineError, match=why):
        _check(lengths)


@pytest.mark.parametrize("token_id", [-1, 100, 2**31 - 1, -(2**31)])
def test_id_outside_the_vocabulary_is_refused(token_id: int) -> None:
    with pytest.raises(EngineError, match=r"outside the vocabulary \(0 to 99\)"):
        _check([3], ids=[1, token_id, 2])


@pytest.mark.parametrize("offsets", [[0, 4], [0, 6], [1, 5], [0, -1]])
def test_offsets_that_do_not_span_the_tokens_are_refused(offsets: list[int]) -> None:
    with pytest.raises(EngineError, match="offsets run from"):
        check_packed(np.arange(5, dtype=np.int32), np.asarray(offsets), causal=False, **_LIMITS)


def test_offsets_that_run_backwards_are_refused() -> None:
    with pytest.raises(EngineError, match="has no token"):
        check_packed(np.arange(5, dtype=np.int32), np.asarray([0, 6, 5]), causal=False, **_LIMITS)


def test_no_offsets_at_all_are_refused() -> None:
    with pytest.raises(EngineError, match="has no sequence"):
        check_packed(np.arange(0, dtype=np.int32), np.asarray([], dtype=np.int64), causal=False, **_LIMITS)


def test_one_long_causal_sequence_may_exceed_the_micro_batch() -> None:
    _check([40], causal=True, max_sequence_tokens=64)
    with pytest.raises(EngineError, match="the micro-batch holds 16"):
        _check([40], causal=False, max_sequence_tokens=64)
    with pytest.raises(EngineError, match="the micro-batch holds 16"):
        _check([40, 1], causal=True, max_sequence_tokens=64)
    with pytest.raises(EngineError, match="the context holds 64"):
        _check([65], causal=True, max_sequence_tokens=64)

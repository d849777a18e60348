from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from cluster.admission import Admission
from cluster.errors import NotReady, Overloaded
from cluster.types import Lane, ReplicaReport, VectorBatch
from tests.support.pipelines import fake_config

ALL = {"wide": 1.0}


class _Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def _answer(tokens_per_s: float | None, elsewhere_tokens: int = 0) -> VectorBatch:
    return VectorBatch(
        fingerprint="f",
        values=np.zeros(0, dtype=np.float32),
        offsets=np.zeros(1, dtype=np.int64),
        widths=np.zeros(0, dtype=np.int32),
        report=ReplicaReport(slots=2, tokens_per_s=tokens_per_s, elsewhere_tokens=elsewhere_tokens),
    )


def _admission(tokens_per_s: float | None = 100.0, replicas: int = 1, **limits: int) -> Admission:
    admission = Admission(fake_config(limits=limits), lambda encoder: replicas, _Clock())
    admission.observe("wide", _answer(tokens_per_s))
    return admission


def test_work_that_fits_its_deadline_is_let_in() -> None:
    admission = _admission()
    with admission.hold(ALL, 200, Lane.INTERACTIVE):
        admission.check(ALL, 90, Lane.INTERACTIVE, 4.0)


def test_work_that_does_not_fit_is_refused_and_told_when_to_come_back() -> None:
    admission = _admission()
    with admission.hold(ALL, 800, Lane.INTERACTIVE), pytest.raises(Overloaded) as caught:
        admission.check(ALL, 100, Lane.INTERACTIVE, 4.0)
    # 900 tokens at 100 tokens/s are 9 s; three quarters of 4 s may be planned, so 6 s must pass.
    assert caught.value.extra["retry_after_s"] == 6


def test_an_answer_that_never_reached_an_engine_says_nothing_of_the_replica() -> None:
    admission = _admission()
    before = replace(admission.loads["wide"])
    admission.observe("wide", replace(_answer(None), report=None))
    assert admission.loads["wide"] == before
    assert before.slots == 2


def test_what_was_refused_fits_after_the_time_that_it_was_told() -> None:
    admission = _admission()
    with admission.hold(ALL, 800 - 600, Lane.INTERACTIVE):
        admission.check(ALL, 100, Lane.INTERACTIVE, 4.0)


def test_more_replicas_take_more() -> None:
    admission = _admission(replicas=3)
    with admission.hold(ALL, 800, Lane.INTERACTIVE):
        admission.check(ALL, 100, Lane.INTERACTIVE, 4.0)


def test_interactive_work_does_not_wait_behind_bulk() -> None:
    admission = _admission()
    with admission.hold(ALL, 10_000, Lane.BULK):
        admission.check(ALL, 100, Lane.INTERACTIVE, 4.0)
        with pytest.raises(Overloaded):
            admission.check(ALL, 100, Lane.BULK, 4.0)


def test_what_waits_at_other_ingresses_counts_until_their_report_is_old() -> None:
    clock = _Clock()
    admission = Admission(fake_config(), lambda encoder: 1, clock)
    admission.observe("wide", _answer(100.0, elsewhere_tokens=1_000))
    with pytest.raises(Overloaded):
        admission.check(ALL, 100, Lane.INTERACTIVE, 4.0)
    clock.now_s += 10.0
    admission.check(ALL, 100, Lane.INTERACTIVE, 4.0)


def test_without_a_measured_speed_only_the_queue_is_bounded() -> None:
    admission = _admission(tokens_per_s=None, max_queued_tokens=1_000)
    with admission.hold(ALL, 900, Lane.INTERACTIVE):
        admission.check(ALL, 100, Lane.INTERACTIVE, 0.001)
        with pytest.raises(Overloaded):
            admission.check(ALL, 101, Lane.INTERACTIVE, 300.0)


def test_a_large_request_alone_is_let_in_unless_it_is_hopeless() -> None:
    admission = _admission(max_queued_tokens=100)
    admission.check(ALL, 700, Lane.BULK, 4.0)
    with pytest.raises(Overloaded):
        admission.check(ALL, 900, Lane.BULK, 4.0)


def test_an_encoder_that_has_not_started_is_not_ready() -> None:
    with pytest.raises(NotReady) as caught:
        _admission(replicas=0).check(ALL, 1, Lane.INTERACTIVE, 4.0)
    assert caught.value.extra["retry_after_s"]


def test_the_account_returns_to_zero_whatever_happens() -> None:
    admission = _admission()
    with suppress(ValueError), admission.hold({"wide": 0.3, "narrow": 0.7}, 10, Lane.BULK):
        assert admission.backlog_tokens == 10
        raise ValueError("on the way")
    assert admission.backlog_tokens == 0


def test_the_estimate_follows_what_texts_turn_out_to_be() -> None:
    admission = _admission()
    assert admission.estimate_tokens("fake", 4_000) == 1_000
    for _ in range(200):
        admission.learn_ratio("fake", 1_000, 1_000)
    assert admission.estimate_tokens("fake", 4_000) == pytest.approx(4_000, rel=0.01)


@pytest.mark.parametrize(
    ("tokens_per_s", "expected"), [(None, 8_192), (100.0, 512), (4_000.0, 2_000), (100_000.0, 8_192)]
)
def test_a_message_holds_half_a_second_of_work(tokens_per_s: float | None, expected: int) -> None:
    assert fake_config().batching.message_tokens == 8_192
    assert _admission(tokens_per_s).message_tokens("wide") == expected

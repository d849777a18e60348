from __future__ import annotations

import signal

import pytest

from cluster.failures import Cause, cause_of_exit


@pytest.mark.parametrize("name", ["SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE"])
def test_a_signal_that_native_code_raises_may_lie_in_the_input(name: str) -> None:
    assert cause_of_exit(-signal.Signals[name]).lies_in_the_input


@pytest.mark.parametrize("status", [-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 0, 1, 134, 137, signal.SIGABRT])
def test_any_other_end_of_a_process_never_does(status: int) -> None:
    assert cause_of_exit(status) is Cause.ENDED
    assert not cause_of_exit(status).lies_in_the_input


def test_only_a_lost_replica_or_encoder_may_have_ended_with_its_message() -> None:
    assert [cause for cause in Cause if cause.may_be_the_message] == [Cause.REPLICA_LOST, Cause.ENCODER_LOST]


def test_nobody_is_suspected_where_nothing_says_why() -> None:
    suspecting = {cause for cause in Cause if cause.suspects_replica}
    assert suspecting == {Cause.REPLICA_LOST, Cause.GIVEN_UP, Cause.ENCODER_LOST}

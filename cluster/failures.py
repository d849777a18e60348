"""What a failure means: one list of causes, and what follows from each.

Whoever meets a failure asks for its cause and then the cause: ``deployments.causes`` knows the exceptions of Ray, Serve and
gRPC, ``cause_of_exit`` how a process ended. No other module tells failures apart.
"""

from __future__ import annotations

import enum
import signal

# Raised by the code that the process itself ran. All other signals come from outside: the kernel's out-of-memory killer, an
# eviction, somebody's kill.
_NATIVE_FAULTS = frozenset({signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})


class Cause(enum.Enum):
    """Why a call, or a process, did not end as it should have.

    Members:
        REPLICA_LOST: the replica's process died, or cannot be reached.
        GIVEN_UP: the replica gave the call up, as one that is being stopped does.
        ENCODER_LOST: the replica's process lives, but its encoder has ended and gives all work back.
        MESSAGE_TOO_LARGE: the message or its answer is above what the transport carries.
        BUSY: as many calls wait as may wait.
        NOT_DEPLOYED: the deployment failed to start and takes no calls.
        STAGE_ERROR: the stage ran and raised an error of its own: that is its answer.
        NATIVE_FAULT: native code ended its own process.
        ENDED: the process was ended from outside, or left by itself.
        UNEXPLAINED: nothing says whose fault it is, so nobody is blamed.
    """

    REPLICA_LOST = "the replica was lost"
    GIVEN_UP = "the replica gave the call up"
    ENCODER_LOST = "the replica's encoder has ended"
    MESSAGE_TOO_LARGE = "the message or its answer is too large"
    BUSY = "too many calls wait"
    NOT_DEPLOYED = "the deployment failed to start"
    STAGE_ERROR = "the stage raised an error"
    NATIVE_FAULT = "native code ended its process"
    ENDED = "the process was ended from outside"
    UNEXPLAINED = "nothing says why"

    @property
    def suspects_replica(self) -> bool:
        """Whether the replica should get nothing more until it answers a probe."""
        return self in (Cause.REPLICA_LOST, Cause.GIVEN_UP, Cause.ENCODER_LOST)

    @property
    def ends_replica(self) -> bool:
        """Whether the replica will never work again, although it may answer probes until it has been replaced."""
        return self is Cause.ENCODER_LOST

    @property
    def may_be_the_message(self) -> bool:
        """Whether the replica died, or its encoder did, which the message may have brought about."""
        return self in (Cause.REPLICA_LOST, Cause.ENCODER_LOST)

    @property
    def may_pass(self) -> bool:
        """Whether the same call may succeed when it is made again."""
        return self in (Cause.REPLICA_LOST, Cause.GIVEN_UP, Cause.ENCODER_LOST, Cause.UNEXPLAINED)

    @property
    def lies_in_the_input(self) -> bool:
        """Whether the end of a process that ran one input alone can be that input's fault."""
        return self is Cause.NATIVE_FAULT


def cause_of_exit(status: int) -> Cause:
    """Return why a child process ended, by its exit status as ``subprocess`` tells it: negative for a signal."""
    return Cause.NATIVE_FAULT if -status in _NATIVE_FAULTS else Cause.ENDED

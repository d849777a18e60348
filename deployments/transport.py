"""What one message between deployments may weigh."""

from __future__ import annotations

from collections.abc import Mapping

from ray.serve._private import constants

GRPC_LIMIT = "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"

DEFAULT_GRPC_LIMIT_BYTES = 4 * 1024 * 1024
"""gRPC's own, which Ray keeps where the variable is not set."""


def usable_bytes(limit_bytes: int) -> int:
    """Return what of a limit a message's content may take; an eighth is for what Serve puts around it."""
    return max(1, limit_bytes * 7 // 8)


def usable_message_bytes() -> int | None:
    """Return the same of the limit in force in this process; None where messages do not go by gRPC, and have none."""
    if not constants.RAY_SERVE_USE_GRPC_BY_DEFAULT:
        return None
    return usable_bytes(int(constants.RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH))


def declared_limit_bytes(variables: Mapping[str, str]) -> int | None:
    """Return the limit that Ray would work with in an environment; None where it is told not to use gRPC.

    Serve's fast mode, which uses it, is taken for granted where the environment does not mention it: nothing here starts Ray
    without.
    """
    by_grpc = variables.get("RAY_SERVE_USE_GRPC_BY_DEFAULT", variables.get("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1"))
    if by_grpc != "1":
        return None
    value = variables.get(GRPC_LIMIT, "")
    return int(value) if value.isdigit() else DEFAULT_GRPC_LIMIT_BYTES

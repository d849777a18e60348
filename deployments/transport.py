"""What one message between deployments may weigh."""

from __future__ import annotations

from ray.serve._private import constants

DEFAULT_GRPC_LIMIT_BYTES = 4 * 1024 * 1024
"""gRPC's own, which Ray keeps where ``RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH`` is not set."""


def usable_message_bytes() -> int | None:
    """Return what of the limit in force in this process a message's content may take; None where messages have no limit.

    An eighth is for what Serve puts around it.
    """
    if not constants.RAY_SERVE_USE_GRPC_BY_DEFAULT:
        return None
    return max(1, int(constants.RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH) * 7 // 8)

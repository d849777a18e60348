"""The order of a rolling update: encoders, then tokenizers, then ingresses.

Serve replaces all deployments of an application at once, each at its own pace. An encoder takes longest to start, and no
encoder takes what a tokenizer of another version has prepared. If tokenizers were first, nothing could be answered until an
encoder had followed; so a new tokenizer is ready only when the encoders have been replaced, and the old ones go on until then.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from ray import serve
from ray.serve.schema import DeploymentStatus, DeploymentStatusOverview, ReplicaState

_LOOK_AGAIN_S = 0.25

# While a deployment is given another number of replicas or heals, it has another status.
_REPLACING = (DeploymentStatus.UPDATING, DeploymentStatus.DEPLOY_FAILED)


def version_of(args: Mapping[str, Any]) -> str:
    """Return what tells one configuration of the application from another."""
    return hashlib.sha256(json.dumps(args, sort_keys=True, default=str).encode()).hexdigest()


async def after_encoders(encoders: Collection[str]) -> None:
    """Wait, in a new tokenizer, until the encoder deployments with these names have been replaced."""
    name = serve.get_replica_context().app_name
    while True:
        status = await asyncio.to_thread(serve.status)
        application = status.applications.get(name)
        if application is None or not must_wait(application.deployments, encoders):
            return
        await asyncio.sleep(_LOOK_AGAIN_S)


def must_wait(deployments: Mapping[str, DeploymentStatusOverview], encoders: Collection[str]) -> bool:
    """Whether encoders are being replaced, and there are others to go on meanwhile in every deployment that it takes."""
    if not _running(deployments, "Tokenizer") or not _running(deployments, "Ingress"):
        return False
    return any(
        encoder in deployments and deployments[encoder].status in _REPLACING and _running(deployments, encoder)
        for encoder in encoders
    )


def _running(deployments: Mapping[str, DeploymentStatusOverview], name: str) -> int:
    return int(deployments[name].replica_states.get(ReplicaState.RUNNING, 0)) if name in deployments else 0

"""The order of a rolling update: encoders, then tokenizers, then ingresses.

Serve replaces all deployments of an application at once, each at its own pace. An encoder takes longest to start, and no
encoder takes what a tokenizer of another version has prepared. If tokenizers were first, nothing could be answered until an
encoder had followed; so a new tokenizer is ready only when half of the encoders are new, and the old ones go on until then.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from ray import serve
from ray.serve.context import _get_global_client

_LOOK_AGAIN_S = 0.25

# While a deployment is given another number of replicas or heals, it has another status.
_REPLACING = ("UPDATING", "DEPLOY_FAILED")


def version_of(args: Mapping[str, Any]) -> str:
    """Return what tells one configuration of the application from another."""
    return hashlib.sha256(json.dumps(args, sort_keys=True, default=str).encode()).hexdigest()


async def after_encoders(encoders: Collection[str]) -> None:
    """Wait, in a new tokenizer, until no fewer new than old replicas of each of these encoder deployments run."""
    name = serve.get_replica_context().app_name
    while True:
        details = await asyncio.to_thread(_get_global_client().get_serve_details)
        application = details["applications"].get(name)
        if application is None or not must_wait(application, encoders):
            return
        await asyncio.sleep(_LOOK_AGAIN_S)


def must_wait(application: Mapping[str, Any], encoders: Collection[str]) -> bool:
    """Whether old encoders outnumber new ones, while old tokenizers and ingresses are there to go on with them.

    Args:
        application: Serve's details of it.
    """
    deployments = application["deployments"]
    if not _started_s(deployments, "Tokenizer") or not _started_s(deployments, "Ingress"):
        return False
    for encoder in encoders:
        if encoder in deployments and deployments[encoder]["status"] in _REPLACING:
            started_s = _started_s(deployments, encoder)
            new = sum(each >= application["last_deployed_time_s"] for each in started_s)
            if len(started_s) - new > new:
                return True
    return False


def _started_s(deployments: Mapping[str, Any], name: str) -> list[float]:
    """When each running replica was started."""
    replicas = deployments[name]["replicas"] if name in deployments else []
    return [replica["start_time_s"] for replica in replicas if replica["state"] == "RUNNING"]

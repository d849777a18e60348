from __future__ import annotations

import pytest
from ray.serve.schema import DeploymentStatus, DeploymentStatusOverview, DeploymentStatusTrigger, ReplicaState

from deployments.updates import must_wait, version_of


def deployment(status: DeploymentStatus, running: int) -> DeploymentStatusOverview:
    return DeploymentStatusOverview(
        status=status,
        status_trigger=DeploymentStatusTrigger.UNSPECIFIED,
        replica_states={ReplicaState.RUNNING: running},
        message="",
    )


@pytest.mark.parametrize(
    ("encoder", "encoders", "tokenizers", "ingresses", "expected"),
    [
        (DeploymentStatus.UPDATING, 1, 1, 1, True),
        (DeploymentStatus.DEPLOY_FAILED, 1, 1, 1, True),
        (DeploymentStatus.HEALTHY, 2, 1, 1, False),
        (DeploymentStatus.UPSCALING, 1, 1, 1, False),
        # No encoder answers: whoever waits gets nothing sooner.
        (DeploymentStatus.UPDATING, 0, 1, 1, False),
        # The application starts, or has lost its tokenizers.
        (DeploymentStatus.UPDATING, 1, 0, 1, False),
        # No ingress can start without a tokenizer.
        (DeploymentStatus.UPDATING, 1, 1, 0, False),
    ],
)
def test_a_new_tokenizer_waits_while_old_replicas_of_every_stage_answer(
    encoder: DeploymentStatus, encoders: int, tokenizers: int, ingresses: int, expected: bool
) -> None:
    deployments = {
        "Tokenizer": deployment(DeploymentStatus.UPDATING, tokenizers),
        "Ingress": deployment(DeploymentStatus.UPDATING, ingresses),
        "Encoder-e": deployment(encoder, encoders),
        "Encoder-other": deployment(DeploymentStatus.HEALTHY, 1),
    }
    assert must_wait(deployments, ["Encoder-e", "Encoder-other", "Encoder-new"]) is expected


def test_a_version_changes_with_any_argument_and_with_no_order() -> None:
    assert version_of({"a": 1, "b": {"c": 2}}) == version_of({"b": {"c": 2}, "a": 1})
    assert version_of({"a": 1}) != version_of({"a": 2})

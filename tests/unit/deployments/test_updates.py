from __future__ import annotations

from typing import Any

import pytest

from deployments.updates import must_wait, version_of

DEPLOYED_S = 1_000.0


def deployment(status: str, old: int, new: int) -> dict[str, Any]:
    """What Serve says of a deployment with so many replicas from before the update and from after it."""
    started_s = [DEPLOYED_S - 1] * old + [DEPLOYED_S + 1] * new
    running = [{"state": "RUNNING", "start_time_s": each} for each in started_s]
    return {"status": status, "replicas": [*running, {"state": "STARTING", "start_time_s": DEPLOYED_S + 2}]}


@pytest.mark.parametrize(
    ("status", "old", "new", "tokenizers", "ingresses", "expected"),
    [
        ("UPDATING", 2, 0, 1, 1, True),
        ("UPDATING", 2, 1, 1, 1, True),
        ("UPDATING", 1, 1, 1, 1, False),
        ("UPDATING", 1, 2, 1, 1, False),
        ("DEPLOY_FAILED", 1, 0, 1, 1, True),
        # Nothing is replaced; the application was only told again.
        ("HEALTHY", 2, 0, 1, 1, False),
        ("UPSCALING", 2, 0, 1, 1, False),
        # No encoder answers: whoever waits gets nothing sooner.
        ("UPDATING", 0, 0, 1, 1, False),
        # The application starts, or has lost its tokenizers.
        ("UPDATING", 2, 0, 0, 1, False),
        # No ingress can start without a tokenizer.
        ("UPDATING", 2, 0, 1, 0, False),
    ],
)
def test_a_new_tokenizer_waits_while_old_replicas_of_every_stage_answer(
    status: str, old: int, new: int, tokenizers: int, ingresses: int, expected: bool
) -> None:
    deployments = {
        "Tokenizer": deployment("UPDATING", tokenizers, 0),
        "Ingress": deployment("UPDATING", ingresses, 0),
        "Encoder-e": deployment(status, old, new),
        "Encoder-other": deployment("HEALTHY", 1, 0),
    }
    application = {"last_deployed_time_s": DEPLOYED_S, "deployments": deployments}
    assert must_wait(application, ["Encoder-e", "Encoder-other", "Encoder-new"]) is expected


def test_a_version_changes_with_any_argument_and_with_no_order() -> None:
    assert version_of({"a": 1, "b": {"c": 2}}) == version_of({"b": {"c": 2}, "a": 1})
    assert version_of({"a": 1}) != version_of({"a": 2})

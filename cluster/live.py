"""The YAML's ``user_config`` of a deployment: what can be changed while it runs. Unknown keys are errors, as in ``args``."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from cluster.config import Strict
from cluster.errors import ConfigError, nearest

Share = Annotated[float, Field(gt=0, le=1)]


class StageSettings(Strict):
    """Of the Ingress, Tokenizer and Pooler.

    Attributes:
        target_busy_share: processor time of a replica, of one core, above which autoscaling adds another.
    """

    target_busy_share: Share = 0.7


class EncoderSettings(Strict):
    """Of an encoder.

    Attributes:
        target_wait_s: autoscaling runs enough replicas to encode all that waits within this time.
        target_busy_share: the engine's share of busy time above which autoscaling adds a replica.
        tokens_per_s: of one replica, as measured elsewhere; counts until a replica has measured its own.
    """

    target_wait_s: Annotated[float, Field(gt=0)] = 1.0
    target_busy_share: Share = 0.8
    tokens_per_s: Annotated[float, Field(gt=0)] | None = None


Settings = TypeVar("Settings", bound=Strict)


def parse_settings(kind: type[Settings], user_config: object) -> Settings:
    """Validate a ``user_config``; None is all defaults.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    try:
        return kind.model_validate(user_config or {})
    except ValidationError as error:
        lines = []
        for fault in error.errors(include_url=False):
            key = ".".join(str(part) for part in fault["loc"]) or "user_config"
            if fault["type"] == "extra_forbidden":
                valid = list(kind.model_fields)
                lines.append(f"{key}: unknown key{nearest(key, valid)}; valid here: {', '.join(sorted(valid))}")
            else:
                lines.append(f"{key}: {fault['msg']} (got {fault['input']!r:.80})")
        raise ConfigError("user_config is not valid:\n" + "\n".join(f"  {line}" for line in lines)) from error

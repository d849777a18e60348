"""Settings that change while a deployment runs."""

from __future__ import annotations

import pytest

from cluster.errors import ConfigError
from cluster.live import EncoderSettings, StageSettings, parse_settings


def test_nothing_given_is_all_defaults() -> None:
    assert parse_settings(StageSettings, None) == StageSettings()


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'target_wait_s'"):
        parse_settings(EncoderSettings, {"target_wait": 1})


@pytest.mark.parametrize("value", [0, -1, "soon"])
def test_a_value_out_of_range_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="target_wait_s"):
        parse_settings(EncoderSettings, {"target_wait_s": value})

from __future__ import annotations

import pytest

from cluster.errors import ModelLoadError
from deployments.failures import failures_told


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ModelLoadError("there is no file m.gguf"),
            "poolhouse: the encoder 'e' cannot start: there is no file m.gguf\n",
        ),
        (ValueError("odd \ud800"), "poolhouse: the encoder 'e' cannot start: ValueError: odd ?\n"),
    ],
)
def test_the_cause_is_told_and_goes_on(error: Exception, line: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)) as caught, failures_told("the encoder 'e'"):
        raise error
    assert caught.value is error
    assert capfd.readouterr().err == line


def test_success_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with failures_told("the encoder 'e'"):
        pass
    assert capfd.readouterr().err == ""

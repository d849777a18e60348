"""A bare ``serve run`` of something that cannot be served prints the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.serve_run import application, serve_run

pytestmark = [pytest.mark.serve, pytest.mark.timeout(150)]

PRINTS_WITHIN_S = 80.0


def test_the_cause_is_printed_in_plain_words(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.gguf"
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(60))
    encoders = {"e": {"model": "m"}}
    applications = [
        application("misspelt", "/a", {"models": {"m": {"sorce": "x"}}, "encoders": encoders}, ["Ingress"]),
        application("missing", "/b", {"models": {"m": {"source": str(missing)}}, "encoders": encoders}, ["Ingress"]),
        application(
            "damaged",
            "/c",
            {"wiring": "split", "models": {"m": {"source": str(damaged)}}, "encoders": encoders},
            ["Ingress", "Tokenizer", "Pooler", "Encoder-e"],
        ),
    ]
    causes = (
        "poolhouse: the application cannot start: the configuration is not valid:",
        "models.m.sorce: unknown key (did you mean 'source'?)",
        f"poolhouse: the Ingress cannot start: there is no file {missing}; correct models.….source",
        "poolhouse: the encoder 'e' cannot start: ",
    )
    with serve_run(tmp_path, applications) as run:
        run.wait_for(lambda: all(cause in run.printed() for cause in causes), PRINTS_WITHIN_S)

"""Every family's encoder keeps its golden texts at its first start and compares them at the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.assembly import load_encoder
from cluster.config import PoolhouseConfig, parse_config
from cluster.golden import TEXTS
from tests.model.test_reference_models import ALL


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _config(path: Path, flash_attention: str) -> PoolhouseConfig:
    encoder = {
        "model": "m",
        "micro_batch_tokens": 64,
        "threads": 1,
        "headless": "off",
        "flash_attention": flash_attention,
    }
    return parse_config({"models": {"m": {"source": str(path)}}, "encoders": {"e": encoder}})


@pytest.mark.parametrize("name", ALL)
def test_a_start_compares_itself_with_the_first_one(
    name: str, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ALL[name](tmp_path / "m.gguf").path
    for flash_attention in ("auto", "off"):
        load_encoder(_config(path, flash_attention), "e").close()
    assert "golden" not in caplog.text.lower()
    kept = sorted((cache / "golden").glob("*.npz"))
    assert kept
    for file in kept:
        with np.load(file) as arrays:
            known = dict(arrays)
        assert len(known["offsets"]) == len(TEXTS) + 1
        np.savez(file, **{**known, "values": known["values"][::-1].copy() + np.float32(0.1)})
    # It starts all the same.
    load_encoder(_config(path, "auto"), "e").close()
    assert "GOLDEN TEXTS DIFFER at the encoder 'e'" in caplog.text
    assert "GOLDEN TEXTS DIFFER at the encoder 'e'" in capsys.readouterr().err

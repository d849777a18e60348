from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from cluster.assembly import load_tokenizer
from cluster.batching.encoder import Encoder
from cluster.engine.fake import FakeEngine
from cluster.golden import TEXTS, check_golden
from cluster.telemetry.metrics import REGISTRY
from cluster.tokenization import Tokenizer
from cluster.types import Float32, Int32, Int64, PoolingType
from tests.support.pipelines import MODEL, SHORT_MODEL, fake_config

VECTORS = (PoolingType.NONE, PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST)
ALL = (*VECTORS, PoolingType.RANK)


class _Drifting(FakeEngine):
    """Its hidden states and scores are off by so much."""

    def __init__(self, vectors_by: float = 0.0, scores_by: float = 0.0) -> None:
        super().__init__(max_micro_batch_tokens=64)
        self._vectors_by, self._scores_by = vectors_by, scores_by
        self.build = f"build {vectors_by} {scores_by}"

    def encode(self, token_ids: Int32, offsets: Int64, *, slot: int = 0, threads: int | None = None) -> Float32:
        hidden = super().encode(token_ids, offsets, slot=slot, threads=threads)
        # At right angles to what is right, as far as a turn by one column can be.
        return hidden + np.float32(self._vectors_by) * np.roll(hidden, 1, axis=1)

    def score(
        self,
        token_ids: Int32,
        offsets: Int64,
        second_segment: Int32,
        *,
        slot: int = 0,
        threads: int | None = None,
    ) -> Float32:
        scores = super().score(token_ids, offsets, second_segment, slot=slot, threads=threads)
        return scores + np.float32(self._scores_by)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tokenizer() -> Tokenizer:
    return load_tokenizer(fake_config())


def _check(
    tokenizer: Tokenizer,
    engine: FakeEngine | None = None,
    pooling_types: tuple[PoolingType, ...] = ALL,
    model: str = MODEL,
) -> list[str]:
    encoder = Encoder(engine or _Drifting(), tokenizer.models[model].fingerprint, 64)
    try:
        return check_golden("wide", encoder, tokenizer, model, pooling_types)
    finally:
        encoder.close()


def _mismatches() -> float:
    return REGISTRY.get_sample_value("poolhouse_golden_mismatches_total", {"encoder": "wide"}) or 0.0


def test_the_first_start_keeps_its_numbers_and_the_next_one_agrees(tokenizer: Tokenizer, cache: Path) -> None:
    assert _check(tokenizer) == []
    kept = {path: path.read_bytes() for path in (cache / "golden").glob("*.npz")}
    assert len(kept) == 2
    assert _check(tokenizer) == []
    assert {path: path.read_bytes() for path in (cache / "golden").glob("*.npz")} == kept


def test_other_vectors_are_told_loudly_counted_and_stop_nobody(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    _check(tokenizer)
    before = _mismatches()
    differences = _check(tokenizer, _Drifting(vectors_by=0.1))
    assert [difference.split(":")[0] for difference in differences] == [
        f"pooling type {pooling.value}" for pooling in VECTORS
    ]
    assert "cosine 0.99" in differences[0]
    assert "kept by build 0.0 0.0, now build 0.1 0.0" in differences[-1]
    assert _mismatches() == before + 1
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "GOLDEN TEXTS DIFFER at the encoder 'wide'" in told[0].getMessage()
    assert "GOLDEN TEXTS DIFFER at the encoder 'wide'" in capsys.readouterr().err


def test_the_standard_stays_the_first_ones(tokenizer: Tokenizer) -> None:
    _check(tokenizer)
    assert _check(tokenizer, _Drifting(vectors_by=0.1))
    assert _check(tokenizer, _Drifting(vectors_by=0.1))
    assert _check(tokenizer) == []


def test_last_digits_may_move(tokenizer: Tokenizer) -> None:
    _check(tokenizer)
    assert _check(tokenizer, _Drifting(vectors_by=9e-5, scores_by=1.1e-3)) == []


def test_other_scores_are_told(tokenizer: Tokenizer) -> None:
    _check(tokenizer)
    differences = _check(tokenizer, _Drifting(scores_by=0.02))
    assert len(differences) == 1
    assert differences[0].startswith("pooling type rank: score 0.")


def test_encoders_of_one_fingerprint_share_what_was_kept_whatever_they_answer(tokenizer: Tokenizer) -> None:
    _check(tokenizer, pooling_types=(PoolingType.MEAN,))
    differences = _check(tokenizer, _Drifting(vectors_by=0.1), (PoolingType.LAST,))
    assert [difference.split(":")[0] for difference in differences] == ["pooling type last"]


def test_other_tokens_are_told(tokenizer: Tokenizer, cache: Path) -> None:
    _check(tokenizer, pooling_types=(PoolingType.MEAN,))
    (path,) = (cache / "golden").glob("*hidden*.npz")
    with np.load(path) as kept:
        arrays = dict(kept)
    # The first text loses its last token.
    width = int(arrays["width"])
    arrays["values"] = arrays["values"][width:]
    arrays["offsets"][1:] -= width
    np.savez(path, **arrays)
    assert _check(tokenizer, pooling_types=(PoolingType.MEAN,))[0].startswith("the texts are split into other tokens")


def test_texts_that_were_cut_are_compared_with_texts_cut_alike(tokenizer: Tokenizer, cache: Path) -> None:
    _check(tokenizer, pooling_types=(PoolingType.MEAN,), model=SHORT_MODEL)
    assert max(len(text.split()) for text in TEXTS) < tokenizer.models[MODEL].max_tokens
    (path,) = (cache / "golden").glob("*.npz")
    assert f"-{tokenizer.models[SHORT_MODEL].max_tokens}-" in path.name
    assert _check(tokenizer, pooling_types=(PoolingType.MEAN,), model=SHORT_MODEL) == []


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY", None, "nan", "short"])
def test_a_damaged_file_is_written_again_and_said(
    tokenizer: Tokenizer, cache: Path, caplog: pytest.LogCaptureFixture, damage: bytes | str | None
) -> None:
    _check(tokenizer, pooling_types=(PoolingType.MEAN,))
    (path,) = (cache / "golden").glob("*.npz")
    whole = path.read_bytes()
    if isinstance(damage, str):
        with np.load(path) as kept:
            arrays = dict(kept)
        arrays["values"] = arrays["values"] * np.nan if damage == "nan" else arrays["values"][:-1]
        np.savez(path, **arrays)
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert _check(tokenizer, pooling_types=(PoolingType.MEAN,)) == []
    assert "is damaged and is written again" in caplog.text
    assert path.read_bytes() == whole
    assert _check(tokenizer, _Drifting(vectors_by=0.1), (PoolingType.MEAN,))


def test_a_cache_that_cannot_be_written_stops_nobody(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path / "file"))
    assert _check(tokenizer) == []
    assert "cannot be compared" in caplog.text

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.batching import calibration
from cluster.batching.calibration import calibrated_sizes, measure, measure_filling
from cluster.engine.fake import FakeEngine, fake_facts
from cluster.types import Float32, Int32, Int64


class _Counting(FakeEngine):
    """Counts its calls and remembers which slots they came in."""

    def __init__(self) -> None:
        super().__init__(max_micro_batch_tokens=512, slots=2)
        self.calls: list[tuple[int, int]] = []

    def encode(self, token_ids: Int32, offsets: Int64, *, slot: int = 0, threads: int | None = None) -> Float32:
        self.calls.append((slot, len(token_ids)))
        return super().encode(token_ids, offsets, slot=slot, threads=threads)


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(calibration, "_LEAST_S", 0.0)
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path))


def test_sizes_grow_up_to_the_engines_largest_and_all_slots_work(monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow a call is for what else runs here, the next size is measured.
    monkeypatch.setattr(calibration, "_SLOW", 0.0)
    engine = _Counting()
    rates = measure(engine)
    sizes = [tokens for tokens, _ in rates]
    assert sizes == [32, 64, 96, 128, 192, 256, 384, 512]
    assert all(rate > 0 for _, rate in rates)
    assert {slot for slot, _ in engine.calls} == {0, 1}


def test_the_same_key_is_measured_once(tmp_path: Path) -> None:
    engine = _Counting()
    first = calibrated_sizes(engine, "key")
    calls = len(engine.calls)
    assert calibrated_sizes(engine, "key") == first
    assert len(engine.calls) == calls
    calibrated_sizes(engine, "another machine")
    assert len(engine.calls) > calls
    assert set(json.loads((tmp_path / "calibration.json").read_text())) == {
        "key method=4",
        "another machine method=4",
    }


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text("{")
    assert calibrated_sizes(_Counting(), "key").rates


def test_a_damaged_entry_is_measured_anew(tmp_path: Path) -> None:
    calibrated_sizes(_Counting(), "other")
    known = json.loads((tmp_path / "calibration.json").read_text())
    for damaged in ([], {"rates": [["many", 1.0]], "filling": None}):
        (tmp_path / "calibration.json").write_text(json.dumps({**known, "key method=4": damaged}))
        assert calibrated_sizes(_Counting(), "key").rates
        assert json.loads((tmp_path / "calibration.json").read_text())["key method=4"] != damaged
    assert json.loads((tmp_path / "calibration.json").read_text()).keys() == {"other method=4", "key method=4"}


def test_an_engine_of_scores_is_measured_by_scoring() -> None:
    engine = _Counting()
    measure(engine, scores=True)
    assert engine.calls == []


def test_an_engine_that_fails_says_so() -> None:
    engine = _Counting()
    engine.close()
    with pytest.raises(Exception, match="closed"):
        measure(engine)


def test_a_pass_that_something_else_slowed_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def rate(engine: FakeEngine, tokens: int, scores: bool, on_cpu: bool) -> float:
        passes.append(tokens)
        disturbed = tokens <= 128 and passes.count(tokens) == 2
        return {96: 980.0, 128: 1000.0, 192: 990.0}.get(tokens, 850.0) / (3 if disturbed else 1)

    monkeypatch.setattr(calibration, "_rate", rate)
    sizes = calibrated_sizes(_Counting(), "key")
    assert dict(sizes.rates)[128] == 1000.0
    assert sizes.best(np.asarray([32] * 20)) == 96


def test_one_disturbed_measurement_does_not_rule_out_all_larger_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def rate(engine: FakeEngine, tokens: int, scores: bool, on_cpu: bool) -> float:
        seen.append(tokens)
        return 100.0 if seen == [32, 64, 96] else 1000.0

    monkeypatch.setattr(calibration, "_rate", rate)
    assert [tokens for tokens, _ in measure(_Counting())] == [32, 64, 96, 128, 192, 256, 384, 512]


def _tiles(cost_s: Callable[[list[int]], float]) -> Callable[[FakeEngine, list[int], bool, bool], float]:
    """The rate of an engine that takes 1 s for 64 tokens, and ``cost_s`` for a call of fewer."""

    def rate(engine: FakeEngine, lengths: list[int], scores: bool, on_cpu: bool) -> float:
        return sum(lengths) / (cost_s(lengths) if sum(lengths) < 64 else 1.0)

    return rate


def test_calls_gain_by_filler_as_their_lengths_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_rate_of", _tiles(_squares))
    filling = measure_filling(FakeEngine())
    assert filling is not None
    assert [tokens for tokens, _, _ in filling.measured] == [32, 40, 48, 56, 63]
    calls = [[38], [34], [30, 30], [20, 20, 20], [10] * 6, [48, 3], [17, 17], [63], [9]]
    assert {str(call): filling.missing_tokens(call) for call in calls} == {
        str(call): 64 - sum(call) if _squares(call) > 1.04 else 0 for call in calls
    }


def _squares(lengths: list[int]) -> float:
    return sum(lengths) / 96 + sum(length**2 for length in lengths) / 2300


def test_an_engine_whose_small_calls_are_faster_gets_no_filler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_rate_of", _tiles(lambda lengths: sum(lengths) / 64))
    assert measure_filling(FakeEngine()) is None


@pytest.mark.parametrize("engine", [FakeEngine(replace(fake_facts(), causal=True)), FakeEngine(context_tokens=32)])
def test_causal_and_tiny_models_are_not_measured_with_filler(engine: FakeEngine) -> None:
    engine.close()
    assert measure_filling(engine) is None


def test_filler_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_rate_of", _tiles(lambda lengths: 3.0))
    first = calibrated_sizes(FakeEngine(), "key")
    assert first.filler_tokens([30, 4]) == 30
    assert (first.filler_tokens([64]), first.filler_tokens([100])) == (0, 0)
    assert calibrated_sizes(FakeEngine(), "key") == first

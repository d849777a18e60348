from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster import assembly
from cluster.assembly import describe, load_encoder, load_facts, load_tokenizer, speed_key
from cluster.config import EncoderConfig, PoolhouseConfig, parse_config
from cluster.engine.fake import FakeEngine, fake_facts
from cluster.errors import ConfigError, EngineError, ModelLoadError
from cluster.types import Float32, PoolingType


def _config(encoder: dict[str, Any] | None = None, **model: Any) -> PoolhouseConfig:
    return parse_config(
        {
            "models": {"first": {"source": "fake", **model}, "second": {"source": "fake"}},
            "encoders": {
                "a": {"model": "first", "engine": "fake", **(encoder or {})},
                "b": {"model": "first", "engine": "fake"},
                "c": {"model": "second", "engine": "fake"},
            },
        }
    )


def test_the_fake_model_has_facts_and_no_file() -> None:
    path, facts, mark = load_facts(_config(), "first")
    assert path is None
    assert facts == fake_facts()
    assert mark


def test_the_fingerprint_changes_with_what_changes_vectors_and_with_nothing_else() -> None:
    def mark(**model: Any) -> str:
        return load_facts(_config(**model), "first")[2]

    plain = mark()
    assert mark(aliases=["x"], truncate="end", max_tokens=100) == plain
    changed = {mark(prompts={"query": "q: "}), mark(append_eos=True), mark(parse_special=True)}
    assert len(changed) == 3
    assert plain not in changed


def test_a_missing_file_is_a_load_error() -> None:
    config = parse_config({"models": {"m": {"source": "nowhere.gguf"}}, "encoders": {"e": {"model": "m"}}})
    with pytest.raises(ModelLoadError, match=r"there is no file nowhere\.gguf"):
        load_facts(config, "m")


def test_a_tokenizer_holds_all_models_or_those_that_are_named() -> None:
    assert list(load_tokenizer(_config()).models) == ["first", "second"]
    assert list(load_tokenizer(_config(), ["second"]).models) == ["second"]


def test_the_shortest_context_of_a_models_encoders_limits_its_sequences() -> None:
    described = describe(load_tokenizer(_config({"context_tokens": 64})))
    assert described["first"].max_tokens == 64
    assert described["second"].max_tokens == 512
    assert described["first"].facts == fake_facts()


def test_the_tokenizer_and_the_encoder_of_a_model_agree_on_its_fingerprint() -> None:
    config = _config()
    encoder = load_encoder(config, "a")
    try:
        assert encoder.fingerprint == describe(load_tokenizer(config))["first"].fingerprint
        encoder.check_health()
    finally:
        encoder.close()


def test_whatever_changes_the_speed_is_part_of_what_a_calibration_is_kept_under() -> None:
    plain: dict[str, Any] = {"sha256": "a", "build": "llama 1", "device": "cpu 1", "slots": 2, "encoder": {}}

    def key(**changed: Any) -> str:
        what = plain | changed
        engine = FakeEngine(slots=what["slots"])
        engine.build, engine.device = what["build"], what["device"]
        return speed_key(what["sha256"], EncoderConfig.model_validate({"model": "m", **what["encoder"]}), engine)

    keys = {
        key(),
        key(sha256="b"),
        key(build="llama 2"),
        key(device="cpu 2"),
        key(slots=3),
        key(encoder={"gpu_layers": -1}),
        key(encoder={"flash_attention": "off"}),
        key(encoder={"headless": "off"}),
    }
    assert len(keys) == 8
    assert key() in keys


def test_an_encoder_is_loaded_only_after_it_has_encoded_with_every_pooling_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded: list[str] = []
    for name in ("encode", "score"):
        original = getattr(FakeEngine, name)

        def noted(
            self: FakeEngine, *args: Any, _name: str = name, _original: Any = original, **options: Any
        ) -> Float32:
            encoded.append(_name)
            result: Float32 = _original(self, *args, **options)
            return result

        monkeypatch.setattr(FakeEngine, name, noted)
    load_encoder(_config({"pooling": ["none", "mean", "rank"]}), "a").close()
    assert encoded == ["encode", "encode", "score"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_numbers_that_are_no_vector_fail_the_load(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(self: FakeEngine, token_ids: Any, offsets: Any, **options: Any) -> Float32:
        return np.full((len(token_ids), 16), value, dtype=np.float32)

    monkeypatch.setattr(FakeEngine, "encode", encode)
    with pytest.raises(ModelLoadError, match=r"not finite or all zero \(mean\)"):
        load_encoder(_config({"pooling": ["mean"]}), "a")


def test_an_engine_that_fails_fails_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(self: FakeEngine, token_ids: Any, offsets: Any, **options: Any) -> Float32:
        raise EngineError("out of memory")

    monkeypatch.setattr(FakeEngine, "encode", encode)
    with pytest.raises(ModelLoadError, match="failed its self-test with mean: out of memory"):
        load_encoder(_config({"pooling": ["mean"]}), "a")


def test_an_impossible_pooling_type_fails_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = fake_facts()
    without = tuple(pooling for pooling in facts.pooling_types if pooling is not PoolingType.RANK)
    monkeypatch.setattr(assembly, "fake_facts", lambda: replace(facts, pooling_types=without, labels=()))
    with pytest.raises(ConfigError, match=r"encoders\.a\.pooling: rank is impossible"):
        load_encoder(_config({"pooling": ["rank"]}), "a")

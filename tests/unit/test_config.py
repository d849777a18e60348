from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from cluster.config import (
    ApiKeysConfig,
    BatchingConfig,
    EncoderConfig,
    Limits,
    ModelConfig,
    PoolhouseConfig,
    Truncate,
    Wiring,
    parse_config,
)
from cluster.errors import ConfigError
from cluster.types import PoolingType

_CONFIGS = Path(__file__).parents[2] / "configs"
_SMALL: dict[str, Any] = {"models": {"m": {"source": "m.gguf"}}, "encoders": {"e": {"model": "m"}}}
_SECTIONS: dict[str, tuple[type[BaseModel], tuple[str, ...]]] = {
    "top": (PoolhouseConfig, ()),
    "model": (ModelConfig, ("models", "m")),
    "encoder": (EncoderConfig, ("encoders", "e")),
    "limits": (Limits, ("limits",)),
    "api_keys": (ApiKeysConfig, ("api_keys",)),
    "batching": (BatchingConfig, ("batching",)),
}


def _with(*path_and_value: Any) -> dict[str, Any]:
    """The smallest valid configuration with one value set."""
    *path, last, value = path_and_value
    args = copy.deepcopy(_SMALL)
    section = args
    for key in path:
        section = section.setdefault(key, {})
    section[last] = value
    return args


def _faults(args: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(args)
    first, *lines = caught.value.message.split("\n")
    assert first == "the configuration is not valid:"
    return [line.strip() for line in lines]


def _keys() -> Iterator[Any]:
    for name, (section, location) in _SECTIONS.items():
        for key in section.model_fields:
            yield pytest.param(location, key, id=f"{name}-{key}")


def test_smallest_configuration_has_the_defaults() -> None:
    config = parse_config(_SMALL)
    assert config.wiring is Wiring.FUSED
    assert config.default_model_name == "m"
    assert config.models["m"].truncate is Truncate.NONE
    assert config.models["m"].parse_special is False
    assert config.encoders["e"].pooling is None
    assert config.batching.shares == (4, 1)


@pytest.mark.parametrize("path", sorted(_CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    applications = yaml.safe_load(path.read_text(encoding="utf-8"))["applications"]
    assert applications
    for application in applications:
        parse_config(application["args"])


@pytest.mark.parametrize(("location", "key"), list(_keys()))
def test_misspelt_key_names_the_nearest_valid_one(location: tuple[str, ...], key: str) -> None:
    misspelt = f"{key}_"
    [fault] = _faults(_with(*location, misspelt, 1))
    assert fault.startswith(f"{'.'.join((*location, misspelt))}: unknown key (did you mean {key!r}?); valid here: ")


@pytest.mark.parametrize("name", _SECTIONS)
def test_unlike_key_gets_the_list_of_valid_ones(name: str) -> None:
    section, location = _SECTIONS[name]
    [fault] = _faults(_with(*location, "zzzzzz", 1))
    assert fault.endswith(f": unknown key; valid here: {', '.join(sorted(section.model_fields))}")


def test_all_faults_are_told_at_once() -> None:
    args = _with("limits", "max_item", 3) | {"wirring": "fused"}
    args["encoders"]["e"]["weight"] = 0
    faults = _faults(args)
    assert len(faults) == 3
    assert {fault.partition(":")[0] for fault in faults} == {"limits.max_item", "wirring", "encoders.e.weight"}


@pytest.mark.parametrize(
    ("path_and_value", "fault"),
    [
        (("wiring", "joined"), "wiring: Input should be 'fused' or 'split' (got 'joined')"),
        (("encoders", "e", "pooling", ["mean", "avg"]), "encoders.e.pooling.1: Input should be 'none', 'mean', 'cls'"),
        (("encoders", "e", "micro_batch_tokens", 0), "encoders.e.micro_batch_tokens: Input should be greater than"),
        (("encoders", "e", "gpu_layers", -2), "encoders.e.gpu_layers: Input should be greater than or equal to -1"),
        (("encoders", "e", "weight", float("nan")), "encoders.e.weight: Input should be greater than 0"),
        (("encoders", "e", "engine", "torch"), "encoders.e.engine: Input should be 'llama' or 'fake'"),
        (("models", "m", "sha256", "abc"), "models.m.sha256: String should match pattern"),
        (("models", "m", "quantisation", "q4_0"), "models.m.quantisation: Input should be 'f32', 'f16' or 'q8_0'"),
        (("models", "m", "dimensions", [0]), "models.m.dimensions.0: Input should be greater than or equal to 1"),
        (("models", "m", "truncate", "middle"), "models.m.truncate: Input should be 'none', 'end' or 'start'"),
        (("limits", "timeout_s", 0), "limits.timeout_s: Input should be greater than 0 (got 0)"),
        (("batching", "shares", [1]), "batching.shares.1: Field required"),
        (("models", {}), "models: Dictionary should have at least 1 item"),
    ],
)
def test_impossible_value_names_key_reason_and_value(path_and_value: tuple[Any, ...], fault: str) -> None:
    assert any(found.startswith(fault) for found in _faults(_with(*path_and_value)))


@pytest.mark.parametrize("args", [None, [], "text", 3])
def test_arguments_that_are_no_mapping_are_refused(args: object) -> None:
    [fault] = _faults(args)
    assert fault.startswith("args: Input should be a valid dictionary")


@pytest.mark.parametrize("key", ["models", "encoders"])
def test_missing_section_is_named(key: str) -> None:
    args = {name: section for name, section in _SMALL.items() if name != key}
    assert _faults(args)[0].startswith(f"{key}: Field required")


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "x" * 129])
def test_name_that_no_path_can_hold_is_refused(name: str) -> None:
    args = {"models": {name: {"source": "m.gguf"}}, "encoders": {"e": {"model": name}}}
    assert any(fault.startswith(f"models.{name}") for fault in _faults(args))


def test_long_value_is_cut_in_the_message() -> None:
    [fault] = _faults(_with("wiring", "x" * 10_000))
    assert len(fault) < 200


def test_encoder_of_an_unknown_model_names_the_nearest() -> None:
    args = {"models": {"minilm": {"source": "m.gguf"}}, "encoders": {"e": {"model": "minilmm"}}}
    [fault] = _faults(args)
    assert fault == (
        "encoders.e.model is 'minilmm', which is not under models (did you mean 'minilm'?); models has: minilm"
    )


def test_encoders_of_one_model_have_one_engine() -> None:
    [fault] = _faults(_with("encoders", "other", {"model": "m", "engine": "fake"}))
    assert fault.startswith("encoders.other.engine is 'fake' and another encoder of the model 'm' has 'llama'")


def test_model_without_an_encoder_is_refused() -> None:
    [fault] = _faults(_with("models", "idle", {"source": "i.gguf"}))
    assert fault == "models.idle is served by no encoder; add one under encoders or remove the model"


def test_unknown_default_model_names_the_nearest() -> None:
    [fault] = _faults(_with("default_model", "mm"))
    assert fault == "default_model is 'mm', which is not under models (did you mean 'm'?); models has: m"


def test_default_model_wins_over_the_first() -> None:
    args = _with("models", "other", {"source": "o.gguf"}) | {"default_model": "other"}
    args["encoders"]["o"] = {"model": "other"}
    assert parse_config(args).default_model_name == "other"


@pytest.mark.parametrize("alias", ["m", "shared"])
def test_alias_that_names_two_models_is_refused(alias: str) -> None:
    args = _with("models", "other", {"source": "o.gguf", "aliases": [alias]})
    args["encoders"]["o"] = {"model": "other"}
    args["models"]["m"]["aliases"] = ["shared"]
    [fault] = _faults(args)
    assert fault == f"models.other.aliases: {alias!r} already names the model 'm'"


def test_alias_may_repeat_its_own_model() -> None:
    assert parse_config(_with("models", "m", "aliases", ["m", "n", "n"])).models["m"].aliases == ("m", "n", "n")


def test_values_do_not_change_afterwards() -> None:
    config = parse_config(_SMALL)
    with pytest.raises(ValidationError, match="frozen"):
        config.encoders["e"].weight = 2.0  # type: ignore[misc]


def test_every_pooling_type_can_be_configured() -> None:
    config = parse_config(_with("encoders", "e", "pooling", [str(pooling) for pooling in PoolingType]))
    assert config.encoders["e"].pooling == tuple(PoolingType)

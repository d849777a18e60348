from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.api.keys import ApiKey, KeyRing, check_model
from cluster.config import ApiKeysConfig
from cluster.errors import ConfigError, PermissionDenied, Unauthorized


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _ring(*keys: str) -> KeyRing:
    return KeyRing(tuple(ApiKey(id=f"id-{key}", sha256=_digest(key)) for key in keys))


def _from_file(path: Path, text: str) -> KeyRing:
    path.write_text(text, encoding="utf-8")
    return KeyRing.load(ApiKeysConfig(file=str(path)))


def _from_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> KeyRing:
    monkeypatch.setenv("TEST_KEYS", text)
    return KeyRing.load(ApiKeysConfig(environment="TEST_KEYS"))


def test_without_keys_everyone_passes() -> None:
    assert KeyRing.load(ApiKeysConfig()).authenticate({}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer beta"},
        {"authorization": "bearer  beta "},
        {"x-api-key": "beta"},
        {"authorization": "Basic abc", "x-api-key": "beta"},
    ],
)
def test_a_known_key_is_found(headers: dict[str, str]) -> None:
    key = _ring("alpha", "beta").authenticate(headers)
    assert key is not None
    assert key.id == "id-beta"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer"}, {"authorization": "Basic alpha"}])
def test_a_missing_key_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized, match="missing"):
        _ring("alpha").authenticate(headers)


@pytest.mark.parametrize("given", ["alph", "alphaa", _digest("alpha"), "id-alpha", "\xff", "кл"])
def test_an_unknown_key_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(Unauthorized, match="unknown") as raised:
        _ring("alpha").authenticate({"authorization": f"Bearer {given}"})
    assert given not in raised.value.message


def test_a_key_beyond_ascii_is_compared_by_its_bytes() -> None:
    as_the_server_decodes_it = "schlüssel".encode().decode("latin-1")
    assert _ring("schlüssel").authenticate({"x-api-key": as_the_server_decodes_it}) is not None


@pytest.mark.parametrize("header", ["# our keys\n", ""])
def test_keys_come_from_a_yaml_file(tmp_path: Path, header: str) -> None:
    text = f"{header}- id: ops\n  sha256: {_digest('alpha')}\n  models: [small]\n  max_items: 3\n"
    key = _from_file(tmp_path / "keys.yaml", text).authenticate({"x-api-key": "alpha"})
    assert key == ApiKey(id="ops", sha256=_digest("alpha"), models=("small",), max_items=3)


@pytest.mark.parametrize(
    "text", [json.dumps([{"id": "ops", "sha256": _digest("alpha")}]), "ops:alpha", " ops : alpha "]
)
def test_keys_come_from_a_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    key = _from_variable(monkeypatch, text).authenticate({"x-api-key": "alpha"})
    assert key is not None
    assert (key.id, key.models, key.max_items) == ("ops", None, None)


def test_pairs_may_hold_colons_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = _from_variable(monkeypatch, "ops:a:b,dev:c")
    assert ring.authenticate({"x-api-key": "a:b"}) is not None
    assert ring.authenticate({"x-api-key": "c"}) is not None


def test_file_and_variable_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEYS", "dev:beta")
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{"id": "ops", "sha256": _digest("alpha")}]))
    ring = KeyRing.load(ApiKeysConfig(file=str(file), environment="TEST_KEYS"))
    assert [ring.authenticate({"x-api-key": key}).id for key in ("alpha", "beta")] == ["ops", "dev"]  # type: ignore[union-attr]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read: No such file"):
        KeyRing.load(ApiKeysConfig(file=str(tmp_path / "absent.yaml")))


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"keys\.yaml is not UTF-8"):
        KeyRing.load(ApiKeysConfig(file=str(file)))


def test_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEYS", raising=False)
    with pytest.raises(ConfigError, match="TEST_KEYS, which is not set"):
        KeyRing.load(ApiKeysConfig(environment="TEST_KEYS"))


@pytest.mark.parametrize("text", ["", "[]", "# nothing\n"])
def test_a_source_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="without a single key"):
        _from_file(tmp_path / "keys.yaml", text)


@pytest.mark.parametrize("text", [":key", "id:", "id:key,,"])
def test_bad_pairs_are_refused_without_repeating_them(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(ConfigError, match="TEST_KEYS is not a list of id:key pairs"):
        _from_variable(monkeypatch, text)


@pytest.mark.parametrize(
    "records",
    [
        [{"id": "ops", "sha256": "secret-in-plain-text"}],
        [{"id": "", "sha256": _digest("secret-in-plain-text")}],
        [{"id": "ops", "key": "secret-in-plain-text"}],
        [{"id": "ops", "sha256": _digest("a"), "max_items": 0}],
        ["secret-in-plain-text"],
        {"secret-in-plain-text": 1},
        "secret-in-plain-text",
    ],
)
def test_bad_records_are_refused_without_repeating_a_secret(tmp_path: Path, records: Any) -> None:
    with pytest.raises(ConfigError, match=r"keys\.yaml is not a list of") as raised:
        _from_file(tmp_path / "keys.yaml", json.dumps(records))
    assert "secret-in-plain-text" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_file_that_is_not_yaml_is_refused_without_repeating_a_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not YAML: see its line 3") as raised:
        _from_file(tmp_path / "keys.yaml", "- id: ops\n  sha256: [secret-in-plain-text\n- x: }")
    assert "secret-in-plain-text" not in str(raised.value)


def test_a_key_may_use_its_models_only() -> None:
    key = ApiKey(id="ops", sha256=_digest("a"), models=("small", "large"))
    check_model(key, "large")
    with pytest.raises(
        PermissionDenied, match="'ops' may not use the model 'other'; it may use: small, large"
    ) as raised:
        check_model(key, "other")
    assert (raised.value.status, raised.value.param) == (403, "model")


@pytest.mark.parametrize("key", [None, ApiKey(id="ops", sha256=_digest("a"))])
def test_without_a_list_of_models_all_may_be_used(key: ApiKey | None) -> None:
    check_model(key, "any")

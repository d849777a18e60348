"""API keys: records of id, SHA-256, models and limits; compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cluster.config import ApiKeysConfig
from cluster.errors import ConfigError, PayloadTooLarge, PermissionDenied, Unauthorized
from cluster.routing import Router


class ApiKey(BaseModel):
    """One key. Only its digest is ever stored.

    Attributes:
        id: names the key in metrics and logs.
        sha256: hexadecimal digest of the key's text.
        models: configured names of the models that it may use; None is all.
        max_items: of one request, below the general limit.
    """

    # A faulty record may hold a key in plain text, which must not reach the log.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    id: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    models: tuple[str, ...] | None = None
    max_items: Annotated[int, Field(ge=1)] | None = None


class KeyRing:
    """All keys of a configuration; without any, every request passes."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = keys

    @classmethod
    def load(cls, config: ApiKeysConfig) -> KeyRing:
        """Read the keys from the file or the environment variable that the configuration names.

        Raises:
            ConfigError: it cannot be read, or is not a list of keys.
        """
        keys: list[ApiKey] = []
        if config.file is not None:
            try:
                keys += _parse_records(Path(config.file).read_text(encoding="utf-8"), f"api_keys.file {config.file}")
            except OSError as error:
                raise ConfigError(f"api_keys.file {config.file} cannot be read: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise ConfigError(f"api_keys.file {config.file} is not UTF-8; save it as UTF-8 text") from error
        if config.environment is not None:
            text = os.environ.get(config.environment)
            if text is None:
                raise ConfigError(
                    f"api_keys.environment names the variable {config.environment}, which is not set; set it or remove the key"
                )
            keys += _parse_variable(text, f"the variable {config.environment}")
        if (config.file or config.environment) and not keys:
            raise ConfigError("api_keys names a source without a single key, so nobody could use the server; add one")
        return cls(tuple(keys))

    @property
    def models(self) -> list[tuple[str, str]]:
        """(key id, model) of every model that a key names."""
        return [(key.id, model) for key in self._keys for model in key.models or ()]

    def authenticate(self, headers: Mapping[str, str]) -> ApiKey | None:
        """Return the key of a request, None where no keys are configured.

        Raises:
            Unauthorized: the key is missing or unknown.
        """
        if not self._keys:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            given = headers.get("x-api-key", "")
        if not given:
            raise Unauthorized("the API key is missing; send the header Authorization: Bearer KEY")
        # ASGI servers decode a header's bytes as Latin-1; the digest is of the bytes.
        digest = hashlib.sha256(given.strip().encode("latin-1", "replace")).hexdigest()
        found: ApiKey | None = None
        # Every key is compared, so that the time taken does not tell which one came close.
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None:
            raise Unauthorized("the API key is unknown; check Authorization: Bearer KEY")
        return found


def check_model(key: ApiKey | None, model: str, shown: str | None = None) -> None:
    """Check that a key may use a model.

    Args:
        model: configured name.
        shown: what an error calls it, since a key does not learn the name behind an alias.

    Raises:
        PermissionDenied: it may not.
    """
    if key is not None and key.models is not None and model not in key.models:
        what = shown or f"the model {model!r}"
        raise PermissionDenied(
            f"the API key {key.id!r} may not use {what}; it may use: {', '.join(key.models)}", "model"
        )


def permitted_model(key: ApiKey | None, router: Router, asked: str | None) -> str:
    """Return the configured name of the model that a request asks for; errors name only models that the key may use.

    Raises:
        ModelNotFound: there is no such model.
        PermissionDenied: the key may not use it.
    """
    model = router.resolve(asked, None if key is None else key.models)
    check_model(key, model, "the default model" if asked is None else f"the model {asked!r}")
    return model


def may_use(key: ApiKey | None, model: str) -> bool:
    """Whether a key may use a model, and so may know of it."""
    return key is None or key.models is None or model in key.models


def check_items(key: ApiKey | None, items: int, param: str) -> None:
    """Check a request's number of items against its key's limit.

    Raises:
        PayloadTooLarge: it has more.
    """
    if key is not None and key.max_items is not None and items > key.max_items:
        raise PayloadTooLarge(f"{param} has {items} items and the limit of this API key is {key.max_items}", param)


def _parse_variable(text: str, where: str) -> list[ApiKey]:
    stripped = text.strip()
    if not stripped or stripped[0] in "[-{":
        return _parse_records(stripped, where)
    pairs = [pair.partition(":") for pair in stripped.split(",")]
    if not all(key_id.strip() and key.strip() for key_id, _, key in pairs):
        raise ConfigError(f"{where} is not a list of id:key pairs separated by commas")
    return [
        ApiKey(id=key_id.strip(), sha256=hashlib.sha256(key.strip().encode()).hexdigest()) for key_id, _, key in pairs
    ]


def _parse_records(text: str, where: str) -> list[ApiKey]:
    expected = "a list of {id, sha256, models?, max_items?}"
    try:
        records = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        # The parser's own message quotes the text, which may hold a key; so does the chain of causes.
        raise ConfigError(f"{where} is not YAML: see its line {line}; it should hold {expected}") from None
    try:
        return TypeAdapter(list[ApiKey]).validate_python(records or [])
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise ConfigError(f"{where} is not {expected}: {faults}") from None

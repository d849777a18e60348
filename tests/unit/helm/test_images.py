"""The Dockerfiles, read without Docker."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.unit.helm.chart import ROOT

DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


def instructions(path: Path) -> list[str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    return [line.strip() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def copied(path: Path) -> list[str]:
    sources: list[str] = []
    for line in instructions(path):
        word, *arguments = line.split()
        if word == "COPY" and not arguments[0].startswith("--from="):
            sources += arguments[:-1]
    return sources


def test_there_is_an_image_for_the_cpu_and_one_for_cuda() -> None:
    assert [path.suffix for path in DOCKERFILES] == [".cpu", ".cuda"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_copied_files_exist_and_reach_the_build(path: Path) -> None:
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    let_in = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    sources = copied(path)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in let_in), f"{source} is shut out by .dockerignore"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_image_has_what_the_operator_calls(path: Path) -> None:
    final = "\n".join(instructions(path)).rpartition("FROM")[2]
    installed = re.search(r"apt-get install ([^&]*)", final)
    assert installed is not None
    assert {"bash", "wget"} <= set(installed[1].split())
    assert re.search(r"^USER 1000$", final, re.MULTILINE)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_library_is_not_built_for_the_builder_s_own_processor(path: Path) -> None:
    assert "-DGGML_NATIVE=OFF" in path.read_text(encoding="utf-8")


def test_both_images_take_python_from_the_same_release() -> None:
    releases = [
        set(re.findall(r"^FROM \S*?(ubuntu:?\d\d\.\d\d)", "\n".join(instructions(path)), re.MULTILINE))
        for path in DOCKERFILES
    ]
    assert [{name.replace(":", "") for name in found} for found in releases] == [{"ubuntu24.04"}] * 2


def test_the_start_script_is_executable_and_its_files_exist() -> None:
    script = ROOT / "docker" / "serve.sh"
    assert os.access(script, os.X_OK)
    names = re.findall(r"\$root/(\S+?)[}\"]", script.read_text(encoding="utf-8"))
    assert names
    for name in names:
        assert (ROOT / name).exists(), name

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import close_session, constants, file_download

from cluster.config import ModelConfig
from cluster.errors import ModelLoadError
from cluster.models.hub import HubSource
from cluster.models.sources import resolve
from tests.unit.models.hub_double import COMMIT, HubDouble, hub_double

_CONTENT = bytes(range(256)) * 40
_SOURCE = "hf://org/repo/deep/m.gguf"


@pytest.fixture
def hub_cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def hub(tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    """A hub with one file, and the library turned to it: it reads its environment when it is imported."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    # What breaks off is tried again after a second or more; here at once.
    for module in ("huggingface_hub.file_download.time", "huggingface_hub.utils._http.time"):
        monkeypatch.setattr(module, SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses.json"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    # Less than the file, so that a part of it counts as received when a connection breaks.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1_024)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub_double() as double:
        monkeypatch.setattr(constants, "ENDPOINT", double.endpoint)
        template = f"{double.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        double.files["org/repo", "deep/m.gguf"] = _CONTENT
        close_session()
        yield double
        close_session()


@pytest.fixture
def unused_port() -> int:
    with hub_double() as gone:
        return int(gone.endpoint.rpartition(":")[2])


def _refusal(source: str = _SOURCE) -> str:
    with pytest.raises(ModelLoadError) as caught:
        HubSource(source).fetch()
    message = caught.value.message
    assert message.startswith(f"{source} cannot be had: ")
    assert "\n" not in message
    return message


def _unfinished(hub_cache: Path) -> list[Path]:
    return list(hub_cache.rglob("*.incomplete"))


def test_file_is_downloaded_once_and_kept(hub: HubDouble, hub_cache: Path) -> None:
    source = HubSource(_SOURCE)
    assert source.local_path() is None
    path = source.fetch()
    assert path.read_bytes() == _CONTENT
    assert path.is_relative_to(hub_cache)
    assert source.fetch() == source.local_path() == path
    assert hub.downloads == [None]


def test_fixed_commit_is_not_asked_for_again(hub: HubDouble) -> None:
    source = HubSource(f"{_SOURCE}@{COMMIT}")
    path = source.fetch()
    asked = hub.heads
    assert source.fetch() == path
    assert hub.heads == asked


def test_broken_download_goes_on_where_it_broke(hub: HubDouble, hub_cache: Path) -> None:
    hub.break_after_bytes = 4_096
    assert HubSource(_SOURCE).fetch().read_bytes() == _CONTENT
    assert hub.downloads == [None, "bytes=4096-"]
    assert _unfinished(hub_cache) == []


def test_full_disk_leaves_nothing(hub: HubDouble, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("huggingface_hub.file_download._get_progress_bar_context", full)
    assert "No space left on device; nothing unfinished was kept" in _refusal()
    assert _unfinished(hub_cache) == []
    assert HubSource(_SOURCE).local_path() is None


def test_hub_that_goes_away_between_answer_and_download_is_a_readable_error(
    hub: HubDouble, hub_cache: Path, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    real = file_download.http_get

    def elsewhere(url: str, *arguments: object, **settings: object) -> None:
        real(url.replace(hub.endpoint, f"http://127.0.0.1:{unused_port}"), *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(file_download, "http_get", elsewhere)
    assert "the connection failed" in _refusal()
    assert _unfinished(hub_cache) == []


def test_gated_repository_asks_for_a_token_and_takes_it(hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add("org/repo")
    assert "set HF_TOKEN to a token that has it" in _refusal()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "set HF_TOKEN to a token that has it" in _refusal()
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert HubSource(_SOURCE).fetch().read_bytes() == _CONTENT


def test_missing_repository_is_named(hub: HubDouble) -> None:
    assert "there is no repository org/other, or it is private" in _refusal("hf://org/other/m.gguf")


def test_missing_revision_is_named(hub: HubDouble) -> None:
    assert "has no revision 'v9'" in _refusal(f"{_SOURCE}@v9")


def test_missing_file_is_named(hub: HubDouble) -> None:
    assert "the repository has no file 'other.gguf'" in _refusal("hf://org/repo/other.gguf")
    assert HubSource("hf://org/repo/other.gguf").local_path() is None


def test_repository_name_that_no_hub_allows_is_a_readable_error(hub: HubDouble) -> None:
    assert "no hub can have such a repository" in _refusal(f"hf://{'o' * 97}/repo/m.gguf")


@pytest.mark.parametrize("status", [403, 500])
def test_failing_hub_is_a_readable_error(hub: HubDouble, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "huggingface_hub")
    hub.status = status
    message = _refusal()
    assert "it is not in the hub's cache and the hub answered: " in message
    assert str(status) in message


def test_page_of_another_server_is_a_readable_error(hub: HubDouble) -> None:
    hub.status = 200
    assert "does not seem to be served by a Hugging Face Hub endpoint" in _refusal()


def test_hub_that_nobody_answers_for_is_a_readable_error(
    hub: HubDouble, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    template = f"http://127.0.0.1:{unused_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert "not in the hub's cache and the hub cannot be reached; check the network" in _refusal()


def test_failing_hub_does_not_matter_once_the_file_is_here(hub: HubDouble) -> None:
    path = HubSource(_SOURCE).fetch()
    hub.status = 500
    assert HubSource(_SOURCE).fetch() == path


def test_offline_takes_the_cache_and_asks_nobody(hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    path = HubSource(_SOURCE).fetch()
    asked = hub.heads
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert HubSource(_SOURCE).fetch() == path
    assert "check the network, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE" in _refusal("hf://org/repo/other.gguf")
    assert hub.heads == asked


def test_digest_is_checked(hub: HubDouble) -> None:
    digest = hashlib.sha256(_CONTENT).hexdigest()
    assert resolve(ModelConfig(source=_SOURCE, sha256=digest)).read_bytes() == _CONTENT
    with pytest.raises(ModelLoadError, match=f"has SHA-256 {digest} and the configuration says"):
        resolve(ModelConfig(source=_SOURCE, sha256="0" * 64))


def test_endpoint_and_token_come_from_the_environment(hub: HubDouble, tmp_path: Path) -> None:
    hub.gated.add("org/repo")
    done = subprocess.run(
        [sys.executable, "-c", f"from cluster.models.hub import HubSource; print(HubSource({_SOURCE!r}).fetch())"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "HF_HOME": str(tmp_path / "home" / "hf"),
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HUB_DISABLE_XET": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.is_relative_to(tmp_path / "home" / "hf")
    assert path.read_bytes() == _CONTENT

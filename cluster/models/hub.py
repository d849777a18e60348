"""GGUF files on a Hugging Face hub: ``hf://org/repo/file.gguf@revision``.

huggingface_hub resumes broken downloads, keeps its own cache, reads ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cluster.errors import ModelLoadError

_SOURCE = re.compile(r"^hf://(?P<repo>[^/@]+/[^/@]+)/(?P<file>[^@]+\.gguf)(?:@(?P<revision>[^@]+))?$")


class HubSource:
    """One file of one repository at one revision."""

    def __init__(self, source: str) -> None:
        found = _SOURCE.match(source)
        if found is None:
            raise ModelLoadError(f"source {source!r} is not of the form hf://org/repo/file.gguf@revision")
        self.source = source
        self.repo = found["repo"]
        self.file = found["file"]
        self.revision = found["revision"] or "main"

    def local_path(self) -> Path | None:
        """Return the file if the hub's cache has it."""
        path = try_to_load_from_cache(self.repo, self.file, revision=self.revision)
        return Path(path) if isinstance(path, str) else None

    def fetch(self) -> Path:
        """Download, or take from the hub's cache.

        Raises:
            ModelLoadError: with what to do about it.
        """
        try:
            return Path(hf_hub_download(self.repo, self.file, revision=self.revision))
        except GatedRepoError as error:
            raise self._failed("its owner grants access on request; set HF_TOKEN to a token that has it") from error
        except RepositoryNotFoundError as error:
            raise self._failed(f"there is no repository {self.repo}, or it is private; set HF_TOKEN if so") from error
        except RevisionNotFoundError as error:
            raise self._failed(f"the repository has no revision {self.revision!r}") from error
        except LocalEntryNotFoundError as error:
            raise self._failed(
                "it is not in the hub's cache and the hub cannot be reached; check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
            ) from error
        except EntryNotFoundError as error:
            raise self._failed(f"the repository has no file {self.file!r}") from error
        except (HfHubHTTPError, httpx.HTTPError) as error:
            raise self._failed(f"the hub answered: {error}") from error
        except OSError as error:
            raise self._failed(f"{error.strerror or error}; a download that broke off resumes next time") from error

    def _failed(self, why: str) -> ModelLoadError:
        return ModelLoadError(f"{self.source} cannot be had: {why}")

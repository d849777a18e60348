"""GGUF files on a Hugging Face hub: ``hf://org/repo/file.gguf@revision``.

huggingface_hub keeps its own cache and reads ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE``. While it runs it takes
a broken connection up again where it broke; what a killed process had downloaded is lost.
"""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cluster.errors import ModelLoadError

# A hub allows letters, digits, "-", "_" and "." in names, which neither begin nor end with "-" or ".".
_NAME = r"\w(?:[\w.-]*\w)?"
_SOURCE = re.compile(rf"^hf://(?P<repo>{_NAME}/{_NAME})/(?P<file>[^@]+\.gguf)(?:@(?P<revision>[^@]+))?$", re.ASCII)


class HubSource:
    """One file of one repository at one revision."""

    def __init__(self, source: str) -> None:
        """Parse ``source``.

        Raises:
            ModelLoadError: it is not of the form above.
        """
        found = _SOURCE.match(source)
        if found is None or "--" in found["repo"] or ".." in source:
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
                f"it is not in the hub's cache and {_why_not_reached(error)}; "
                "check the network, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE"
            ) from error
        except EntryNotFoundError as error:
            raise self._failed(f"the repository has no file {self.file!r}") from error
        except HFValidationError as error:
            raise self._failed(f"no hub can have such a repository: {error}") from error
        except HfHubHTTPError as error:
            raise self._failed(f"the hub answered: {_one_line(error)}") from error
        except httpx2.HTTPError as error:
            raise self._failed(
                f"the connection failed ({error}); check the network and HF_ENDPOINT, then repeat"
            ) from error
        except OSError as error:
            raise self._failed(f"{error.strerror or error}; nothing unfinished was kept") from error

    def _failed(self, why: str) -> ModelLoadError:
        return ModelLoadError(f"{self.source} cannot be had: {why}")


def _why_not_reached(error: Exception) -> str:
    # The library calls everything from a refusal to a missing network by one name; the cause tells them apart.
    cause = error.__cause__
    if isinstance(cause, (HfHubHTTPError, FileMetadataError)):
        return f"the hub answered: {_one_line(cause)}"
    return "the hub cannot be reached"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

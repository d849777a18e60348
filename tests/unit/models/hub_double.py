"""A server on this machine that answers for files as a Hugging Face hub does."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "c0ffee" + "0" * 34
_RESOLVE = re.compile(r"^/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")


@dataclass(slots=True)
class HubDouble:
    """What the hub holds, and what it was asked.

    Attributes:
        files: (repository, file) → content, at revisions ``main`` and ``COMMIT``.
        gated: repositories whose files need ``token``.
        break_after_bytes: the next download is cut off after so many bytes.
        status: answer everything with this status.
        downloads: the Range header of every GET for a file, None where it had none.
    """

    endpoint: str = ""
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    token: str = "hf_right"
    break_after_bytes: int | None = None
    status: int | None = None
    heads: int = 0
    downloads: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def hub_double() -> Iterator[HubDouble]:
    """Run one on a free port."""
    hub = HubDouble()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            found = _RESOLVE.match(self.path)
            if found is None:
                self._refuse(404, None)
                return
            repo, revision, file = (unquote(found[name]) for name in ("repo", "revision", "file"))
            hub.heads += not with_body
            authorised = self.headers.get("Authorization") == f"Bearer {hub.token}"
            if hub.status is not None:
                self._refuse(hub.status, None)
            elif repo in hub.gated and not authorised:
                self._refuse(401, "GatedRepo")
            elif not any(known == repo for known, _ in hub.files):
                self._refuse(401, "RepoNotFound")
            elif revision not in ("main", COMMIT):
                self._refuse(404, "RevisionNotFound")
            elif (repo, file) not in hub.files:
                self._refuse(404, "EntryNotFound")
            else:
                self._send(hub.files[repo, file], with_body=with_body)

        def _refuse(self, status: int, code: str | None) -> None:
            self.send_response(status)
            if code is not None:
                self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", "refused by the double")
                self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, content: bytes, *, with_body: bool) -> None:
            wanted = self.headers.get("Range")
            begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            part = content[begin:]
            self.send_response(206 if wanted else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(part)))
            if wanted:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if with_body:
                hub.downloads.append(wanted)
                self.wfile.write(part[: hub.break_after_bytes])
                if hub.break_after_bytes is not None:
                    self.close_connection = True
                    hub.break_after_bytes = None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

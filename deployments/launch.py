"""``python -m deployments.launch FILE``: ``serve run FILE`` with a Ray of its own that no other machine reaches.

``make serve`` and the images start their server here. Ray and Serve by themselves listen on all addresses, give every server of
a machine the same ports, and find out last of all that the service's port is taken. Where ``RAY_ADDRESS`` names a cluster, that
cluster is joined, and nothing of this is done.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from deployments.ports import listeners, why_not

# Ray then takes 127.0.0.1 for the node's address, and all its servers listen there alone. Named for where it is the default.
_ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

_MODE = "RAY_AUTH_MODE"

_FALLBACK = "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"
_FIRST = "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"
_AFTER_LAST = "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"
_METRICS = ("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT")

# Serve's own range for replicas, shared out among the servers of a machine.
_BLOCK = 100
_BLOCKS = range(30_000, 31_000, _BLOCK)


def main() -> NoReturn:
    """Become ``serve run``, or say in a sentence why not."""
    file = sys.argv[1]
    serve = str(Path(sys.executable).with_name("serve"))
    if os.environ.get("RAY_ADDRESS", "local") != "local":
        os.execv(serve, [serve, "run", file])
    fault = taken(file)
    if fault is not None:
        sys.exit(f"poolhouse: {fault}")
    os.environ[_ON_LOOPBACK] = "0"
    os.environ.setdefault(_MODE, "token")
    claim = claim_ports(os.environ)
    if claim is not None:
        # The claim holds as long as the server runs; children of serve do not inherit it.
        claim.set_inheritable(True)
    keep_token(os.environ)
    os.execv(serve, [serve, "run", "--address", "local", file])


def taken(file: str) -> str | None:
    """Say why a configuration's service cannot listen where it wants to, or None where it can."""
    try:
        document: Any = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        return f"{file} cannot be read: {error}"
    options = (document.get("http_options") if isinstance(document, dict) else None) or {}
    reason = why_not(str(options.get("host") or "0.0.0.0"), int(options.get("port", 8000)))
    return reason and f"{reason}; free it, or set another one: http_options.port in {file}"


def claim_ports(environment: MutableMapping[str, str]) -> socket.socket | None:
    """Give this server ports that no other one on this machine has.

    Two servers on the same ones would answer each other's requests: Serve's stand-in proxies share a port that they find taken,
    and a replica may get one that another server's HAProxy still sends to.

    Returns:
        What holds the claim while it is open; None where the environment names ports already.

    Raises:
        SystemExit: there are as many servers as there are ports for.
    """
    if environment.keys() & {_FALLBACK, _FIRST, _AFTER_LAST}:
        return None
    busy = {listener.port for listener in listeners()}
    for start in random.sample(_BLOCKS, len(_BLOCKS)):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", start))
        except OSError:
            claim.close()
            continue
        if busy.isdisjoint(range(start, start + _BLOCK)):
            first, *metrics = range(start + 1, start + 2 + len(_METRICS))
            environment.update({_FALLBACK: str(first), _FIRST: str(start + 10), _AFTER_LAST: str(start + _BLOCK)})
            for name, port in zip(_METRICS, metrics, strict=True):
                environment.setdefault(name, str(port))
            return claim
        claim.close()
    sys.exit(
        f"poolhouse: no hundred ports between {_BLOCKS.start} and {_BLOCKS.stop} are free; end a server, or set "
        f"{_FALLBACK}, {_FIRST} and {_AFTER_LAST}"
    )


def keep_token(environment: MutableMapping[str, str]) -> None:
    """Make the token that Ray would make, or narrow the one that it made: readable by this user alone, not by everybody."""
    if environment.get(_MODE) != "token" or environment.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        return
    file = Path.home() / ".ray" / "auth_token"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        file.chmod(0o600)
        return
    with open(descriptor, "w", encoding="ascii") as written:
        written.write(secrets.token_hex(32))


if __name__ == "__main__":
    main()

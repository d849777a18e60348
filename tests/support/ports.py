"""Ports for servers that tests and benchmarks start."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """Return a port that nothing listens on at the moment."""
    # Below the ports that Serve gives to replicas and the kernel to connections, and above those that Ray gives to its workers:
    # each might take another one in the time until it is listened on.
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # On all interfaces, as HAProxy's own ports are: Ray listens on another one than 127.0.0.1.
            probe.bind(("", port))
            return port
    raise OSError("none of 100 ports between 20000 and 30000 is free")

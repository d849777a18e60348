"""Ports of this machine: who listens where. Standard library only: the program in front of HAProxy imports it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_LISTENS = "0A"
_LONGEST_NAME = 80

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Listener:
    """A TCP socket that waits for connections.

    Attributes:
        inode: what the descriptors of the processes that hold it refer to.
    """

    address: Address
    port: int
    inode: str

    @property
    def only_from_here(self) -> bool:
        """Whether no other machine can reach it."""
        mapped = self.address.ipv4_mapped if isinstance(self.address, IPv6Address) else None
        return (mapped or self.address).is_loopback


def listeners() -> list[Listener]:
    """Every listening TCP socket of this network namespace."""
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS:
                    address, _, port = fields[1].partition(":")
                    found.append(Listener(_decoded(address), int(port, 16), fields[9]))
    return found


def _decoded(address: str) -> Address:
    # Words of four bytes, each in this machine's order.
    words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
    return ip_address(b"".join(words))


def inodes_of(process: Path) -> Iterator[str]:
    """The sockets that a process, a folder of ``/proc``, holds; those of others' processes are not told."""
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(descriptor)
                if target.startswith("socket:["):
                    yield target[8:-1]


def why_not(host: str, port: int) -> str | None:
    """Say why nothing can listen at an address of this machine, or None where something can.

    Args:
        host: a name or an address.
    """
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return f"{host} is not an address of this machine ({error.strerror})"
    faults: list[str] = []
    for family, _, _, _, address in places:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # Connections that have just ended do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} is taken by {_holder(port)}"
            faults.append(f"{host}:{port} cannot be listened on ({error.strerror})")
    # A name may have several addresses, some of a family that this machine does not have.
    return faults[0] if len(faults) == len(places) else None


def _holder(port: int) -> str:
    wanted = {listener.inode for listener in listeners() if listener.port == port}
    for process in sorted(
        (entry for entry in Path("/proc").iterdir() if entry.name.isdigit()), key=lambda it: int(it.name)
    ):
        if wanted.intersection(inodes_of(process)):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").split()
                return f"process {process.name} ({' '.join(words)[:_LONGEST_NAME]})"
    return "a process of another user"

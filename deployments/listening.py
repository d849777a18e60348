"""Where a replica's server for other deployments listens: on loopback where its node is."""

from __future__ import annotations

from typing import Any

from ray.serve._private import replica
from ray.util import get_node_ip_address

_serves_at = replica.add_port_to_grpc_server


def listen_where_the_node_does() -> None:
    """Narrow the address that Serve gives to the server, which is every one, whatever the node's; called by a constructor.

    Serve starts the server after the constructor, and has no setting for its address.
    """
    if get_node_ip_address() == "127.0.0.1":
        replica.add_port_to_grpc_server = _on_loopback


def _on_loopback(server: Any, address: str) -> int:
    port: int = _serves_at(server, address.replace("[::]", "127.0.0.1"))
    return port

"""Poolhouse's log lines go the way of Serve's own, so that ``logging_config`` of the YAML shapes both."""

import logging


def join_serve_logs() -> None:
    """Hand this process's Poolhouse lines to Serve's logger: its format (text or JSON), its file, its request ids."""
    logging.getLogger("poolhouse").parent = logging.getLogger("ray.serve")

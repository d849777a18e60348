"""Serve's fast mode: the environment that it needs, and what its absence costs."""

import os

PROGRAM = "poolhouse-haproxy"

FAST_MODE = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
}


def missing_fast_mode() -> list[str]:
    """Return one line that names what is missing, or nothing."""
    missing = [f"{name}={value}" for name, value in FAST_MODE.items() if os.environ.get(name) != value]
    if not missing:
        return []
    return [
        f"Serve's fast mode is off: set {' '.join(missing)} before Ray starts (make serve does). "
        "Without it a request costs about four times the CPU outside the encoder."
    ]


def unguarded_proxy() -> list[str]:
    """Return one line where HAProxy runs without ``deployments.haproxy``, or nothing."""
    program = os.path.basename(os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", ""))
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1" or program == PROGRAM:
        return []
    return [
        f'HAProxy runs unguarded: set RAY_SERVE_HAPROXY_BINARY_PATH="$(command -v {PROGRAM})" before Ray starts (make serve '
        "does). Without it an HAProxy that dies is missed for half a minute, and one whose Ray was ended keeps its ports."
    ]

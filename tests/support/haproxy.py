"""``poolhouse-haproxy`` of this checkout, whatever is installed."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

ROOT = Path(__file__).parents[2]


@cache
def haproxy_program() -> str:
    """Write the program as an installation would; returns its path."""
    program = Path(mkdtemp(prefix="poolhouse-haproxy-")) / "poolhouse-haproxy"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from deployments.haproxy import main\nmain()\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    return str(program)

"""CPU time of a server: of a process and all its descendants, by kind, from Linux's ``/proc``."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from cluster.errors import InvalidRequest

PROC = Path("/proc")
# Serve names a replica's process after its deployment: "ray::ServeReplica:poolhouse:Encoder-minilm".
_REPLICA = "ray::ServeReplica:"


def children_of(proc: Path = PROC) -> dict[int, list[int]]:
    """Return every process's children, by process id."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            fields = _stat(entry)
            if fields is not None:
                children[int(fields[1])].append(int(entry.name))
    return children


def tree_of(root: int, proc: Path = PROC) -> list[int]:
    """Return a process's id and those of all its descendants."""
    children = children_of(proc)
    tree, position = [root], 0
    while position < len(tree):
        tree += children.get(tree[position], [])
        position += 1
    return tree


def cpu_seconds(root: int, proc: Path = PROC) -> dict[str, float]:
    """Return the CPU seconds that each kind of process below ``root``, itself included, has taken so far.

    Raises:
        InvalidRequest: there is no such process, or no ``/proc``.
    """
    if not (proc / str(root)).is_dir():
        raise InvalidRequest(
            f"there is no process {root} in {proc}; give the id of a server that runs on this machine (Linux only)"
        )
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    seconds: defaultdict[str, float] = defaultdict(float)
    for process in tree_of(root, proc):
        fields = _stat(proc / str(process))
        if fields is not None:
            # User and system time of the process itself; a living child is counted by itself.
            seconds[kind_of(process, proc)] += (int(fields[11]) + int(fields[12])) / ticks_per_s
    return dict(seconds)


def kind_of(process: int, proc: Path = PROC) -> str:
    """Return what a process is: a replica's deployment, or its program's name."""
    try:
        words = (proc / str(process) / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "ended"
    if words[0].startswith(_REPLICA):
        return words[0].removeprefix(_REPLICA).split(":")[-1].split("#")[0].strip()
    if words[0].startswith("ray::"):
        return words[0].split(".")[0].strip()
    names = [Path(word).name for word in words if word and not word.startswith("-")]
    if names and names[0].startswith("python") and len(names) > 1:
        return names[1]
    return names[0] if names else "kernel"


def difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return what was taken between two readings; processes that ended in between are left out."""
    return {
        kind: seconds - before.get(kind, 0.0) for kind, seconds in after.items() if seconds >= before.get(kind, 0.0)
    }


def _stat(entry: Path) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` behind the program's name, or None where the process has ended."""
    try:
        text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()

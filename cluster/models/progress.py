"""Progress on a terminal; elsewhere one line at the start and one at the end."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm


@contextlib.contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that reports so many units done."""
    if sys.stderr.isatty():
        with tqdm(total=total, desc=title, unit=unit, unit_scale=True) as bar:

            def step(done: int) -> None:
                bar.update(done)

            yield step
        return
    started_s = time.monotonic()
    print(f"{title} …", file=sys.stderr, flush=True)
    yield lambda done: None
    print(f"{title}: done in {time.monotonic() - started_s:.1f} s", file=sys.stderr, flush=True)

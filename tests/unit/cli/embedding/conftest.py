from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.cli.main import main


@pytest.fixture
def embed(local_fake: None) -> Callable[..., int]:
    return lambda *arguments: main(["embed", *map(str, arguments)])

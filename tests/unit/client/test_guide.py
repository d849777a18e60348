"""The guide's examples run."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.api.application import create_application
from tests.support.pipelines import fake_config, local_pipeline
from tests.support.servers import served

GUIDE = Path(__file__).parents[3] / "docs" / "client.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with local_pipeline(fake_config()) as local, served(create_application(local.pipeline, local.check_ready)) as url:
        yield url


@pytest.mark.parametrize("example", [example for example in EXAMPLES if "rerank" not in example])
def test_an_example_runs(base_url: str, example: str) -> None:
    program = compile(example.replace("http://127.0.0.1:8000", base_url), str(GUIDE), "exec", dont_inherit=True)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            exec(program, {})
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failures.append(error)

    # In a thread of its own, since one example starts an event loop.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert failures == []


def test_all_examples_compile() -> None:
    assert len(EXAMPLES) >= 7
    for example in EXAMPLES:
        compile(example, str(GUIDE), "exec")

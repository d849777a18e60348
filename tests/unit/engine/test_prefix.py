from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from cluster.types import offsets_of

if importlib.util.find_spec("llama_cpp") is None:
    pytest.skip("llama-cpp-python is not installed", allow_module_level=True)

from cluster.engine.llama.prefix import plan_prefix

QUERY = list(range(100, 130))
NOTHING: list[int] = []


@pytest.mark.parametrize(
    ("pairs", "held", "expected"),
    [
        pytest.param([[*QUERY, 1, 2], [*QUERY, 3]], NOTHING, (0, 30), id="common-query"),
        pytest.param([[*QUERY, 1, 2], [*QUERY, 3]], [*QUERY, 9], (30, 30), id="held-query"),
        pytest.param([[*QUERY, 1, 2], [*QUERY, 3]], QUERY[:20], (20, 20), id="rest-too-short-to-decode-apart"),
        pytest.param([[*QUERY, *QUERY, 1], [*QUERY, *QUERY, 2]], QUERY, (30, 60), id="held-query-and-more"),
        pytest.param([[*QUERY, 1], [*QUERY, 1]], NOTHING, (0, 30), id="equal-pairs-keep-their-last-token"),
        pytest.param([[*QUERY, 1]], NOTHING, (0, 0), id="one-pair"),
        pytest.param([[*QUERY, 1, 5]], [*QUERY, 1, 7], (31, 31), id="one-pair-held"),
        pytest.param([[*QUERY, 1]], [*QUERY, 1], (30, 30), id="one-pair-held-whole"),
        pytest.param([QUERY, [7, *QUERY]], QUERY, (0, 0), id="nothing-common"),
        pytest.param([[*QUERY, 1], [*QUERY, 2], QUERY[:12]], QUERY, (0, 0), id="short-pair-among-them"),
        pytest.param([[5], [*QUERY]], NOTHING, (0, 0), id="one-token"),
    ],
)
def test_plan(pairs: list[list[int]], held: list[int], expected: tuple[int, int]) -> None:
    ids = np.concatenate([np.array(pair, dtype=np.int32) for pair in pairs])
    assert plan_prefix(ids, offsets_of([len(pair) for pair in pairs]), np.array(held, dtype=np.int32)) == expected

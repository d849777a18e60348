from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import orjson
import pytest

from cluster.client.packing import Job, Packer, print_text
from cluster.errors import InvalidRequest


def _sizes(jobs: list[Job]) -> list[tuple[int, int]]:
    return [(job.start, len(job)) for job in jobs]


def _packer(max_items: int = 100, max_bytes: int = 1000) -> Packer:
    return Packer("input", print_text, max_items, max_bytes)


def test_jobs_are_bounded_by_items() -> None:
    assert _sizes(list(_packer(max_items=3).pack("abcdefgh"))) == [(0, 3), (3, 3), (6, 2)]


def test_jobs_are_bounded_by_bytes_of_json() -> None:
    # Each text is 10 bytes with its quotes, whatever the number of its characters.
    texts = ["12345678", "üüüü", "日本12", '\\"\\"']
    assert [len(print_text(text)) for text in texts] == [10] * 4
    assert _sizes(list(_packer(max_bytes=20).pack(texts))) == [(0, 2), (2, 2)]
    assert _sizes(list(_packer(max_bytes=29).pack(texts))) == [(0, 2), (2, 2)]
    assert _sizes(list(_packer(max_bytes=30).pack(texts))) == [(0, 3), (3, 1)]


def test_an_item_above_the_bound_goes_alone() -> None:
    assert _sizes(list(_packer(max_bytes=20).pack(["a", "b" * 50, "c", "d"]))) == [(0, 1), (1, 1), (2, 2)]


def test_every_item_is_in_one_job_under_its_index() -> None:
    values = ["a" * length for length in (1, 30, 0, 7, 0, 0, 50, 2)] * 5
    jobs = list(_packer(max_items=4, max_bytes=40).pack(values))
    indices = [index for job in jobs for index in sorted([*(item.index for item in job.items), *job.refused])]
    assert indices == list(range(len(values)))
    assert all(job.start == min([*(item.index for item in job.items), *job.refused]) for job in jobs)
    assert all(orjson.loads(item.json) == values[item.index] for job in jobs for item in job.items)


def test_a_full_job_is_handed_out_before_the_next_item_is_read() -> None:
    read = []

    def values() -> Iterator[str]:
        for text in "abcdef":
            read.append(text)
            yield text

    next(_packer(max_items=2).pack(values()))
    assert read == ["a", "b"]
    read.clear()
    next(_packer(max_bytes=9).pack(values()))
    assert read == ["a", "b", "c"]


async def test_an_asynchronous_iterable_gives_the_same_jobs() -> None:
    async def values() -> AsyncIterator[str]:
        for text in "abcdefg":
            await asyncio.sleep(0)
            yield text

    assert _sizes([job async for job in _packer(max_items=3).pack_async(values())]) == [(0, 3), (3, 3), (6, 1)]
    assert _sizes([job async for job in _packer(max_items=3).pack_async("abcdefg")]) == [(0, 3), (3, 3), (6, 1)]


class TestPrinting:
    @pytest.mark.parametrize(
        ("value", "printed"),
        [
            ("a", b'"a"'),
            ([1, 2], b"[1,2]"),
            ((1, 2), b"[1,2]"),
            (["text", 5], b'["text",5]'),
            ([np.int64(1), np.int32(2)], b"[1,2]"),
            (np.array([1, 2], dtype=np.int32), b"[1,2]"),
            (np.array([1, 2], dtype=np.uint16), b"[1,2]"),
            (np.array(["a"])[0], b'"a"'),
        ],
    )
    def test_texts_and_token_ids(self, value: object, printed: bytes) -> None:
        assert print_text(value) == printed

    @pytest.mark.parametrize(
        "value", [None, 1, 1.5, b"a", {}, {"a"}, "", [], np.array([1.5]), np.array([[1]]), "\udfff", [object()]]
    )
    def test_nothing_else(self, value: object) -> None:
        with pytest.raises(InvalidRequest):
            print_text(value)

from __future__ import annotations

import numpy as np

from cluster.batching.jobs import Job
from cluster.batching.lanes import LaneQueues
from cluster.batching.planning import MicroBatchSizes
from cluster.types import Lane, PoolingType, RequestFacts, TokenBatch, offsets_of


def _job(lengths: list[int], lane: Lane = Lane.INTERACTIVE, pooling: list[PoolingType] | None = None) -> Job:
    kinds = pooling or [PoolingType.MEAN] * len(lengths)
    return Job.of(
        TokenBatch(
            fingerprint="f",
            token_ids=np.zeros(sum(lengths), dtype=np.int32),
            offsets=offsets_of(lengths),
            pooling=np.asarray([kind.code for kind in kinds], dtype=np.uint8),
            second_segment=np.full(len(lengths), -1, dtype=np.int32),
            cut_tokens=np.zeros(len(lengths), dtype=np.int32),
            owner=np.zeros(len(lengths), dtype=np.int32),
            requests=[RequestFacts("r", lane)],
        )
    )


def _queues(size: int = 100, shares: tuple[int, int] = (4, 1), max_sequences: int = 64) -> LaneQueues:
    return LaneQueues(MicroBatchSizes.fixed(size), max_sequences, shares)


def _taken(queues: LaneQueues, idle_workers: int = 1) -> list[int]:
    return [job.lengths[item] for job, item in queues.take(idle_workers)]


def test_everything_queued_is_taken_once_and_the_tokens_return_to_zero() -> None:
    queues = _queues()
    jobs = [_job([30, 50, 70]), _job([10] * 30), _job([99])]
    for job in jobs:
        queues.add(job)
    assert queues.tokens == 549
    seen: list[tuple[int, int]] = []
    while queues:
        window = queues.take(1)
        assert sum(job.lengths[item] for job, item in window) <= 100
        seen += [(id(job), item) for job, item in window]
    assert len(seen) == len(set(seen)) == 34
    assert queues.tokens == 0


def test_the_oldest_item_is_in_the_next_micro_batch() -> None:
    queues = _queues()
    first = _job([3])
    queues.add(first)
    for _ in range(10):
        queues.add(_job([100, 97]))
    assert any(job is first for job, _ in queues.take(1))


def test_lanes_take_turns_by_their_shares() -> None:
    queues = _queues()
    for _ in range(20):
        queues.add(_job([100]))
        queues.add(_job([100], Lane.BULK))
    lanes = [queues.take(1)[0][0].lane for _ in range(15)]
    assert lanes.count(Lane.BULK) == 3
    assert lanes[:5].count(Lane.BULK) == 1


def test_an_interactive_message_waits_for_no_more_than_the_bulk_turn() -> None:
    queues = _queues()
    queues.add(_job([100] * 50, Lane.BULK))
    queues.take(1)
    urgent = _job([5])
    queues.add(urgent)
    assert any(job is urgent for job, _ in queues.take(1))


def test_scores_and_hidden_states_do_not_share_a_micro_batch() -> None:
    queues = _queues()
    queues.add(_job([10, 10, 10], pooling=[PoolingType.RANK, PoolingType.MEAN, PoolingType.RANK]))
    assert [item for _, item in queues.take(1)] == [0, 2]
    assert [item for _, item in queues.take(1)] == [1]


def test_a_short_queue_is_shared_among_idle_workers() -> None:
    queues = _queues(size=1_000)
    queues.add(_job([100] * 4))
    assert _taken(queues, idle_workers=2) == [100, 100]
    assert _taken(queues, idle_workers=1) == [100, 100]


def test_little_work_is_not_shared() -> None:
    queues = _queues(size=1_000)
    queues.add(_job([10] * 4))
    assert _taken(queues, idle_workers=2) == [10] * 4


def test_a_message_with_one_bulk_and_one_interactive_request_is_interactive() -> None:
    job = _job([1, 1], Lane.BULK)
    assert job.lane is Lane.BULK
    job.batch.requests.append(RequestFacts("other", Lane.INTERACTIVE))
    job.batch.owner[1] = 1
    assert job.lane is Lane.INTERACTIVE


def test_drained_queues_are_empty() -> None:
    queues = _queues()
    job = _job([1])
    queues.add(job)
    assert queues.drain() == [job]
    assert not queues
    assert queues.tokens == 0

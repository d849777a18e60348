"""The encoder's two queues, and what the next micro-batch takes from them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from cluster.batching.jobs import Job, Window
from cluster.batching.planning import MicroBatchSizes, plan_micro_batches
from cluster.types import Lane, PoolingType

_RANK = PoolingType.RANK.code

# A window of several micro-batches gives the planner lengths to choose from without a look at the whole backlog.
_WINDOW_MICRO_BATCHES = 8

# Below this, a micro-batch of its own costs more than it spreads.
_LEAST_SHARE_TOKENS = 64


# Entries are told apart by identity: comparing arrays in them is an error.
@dataclass(slots=True, eq=False)
class _Waiting:
    job: Job
    items: deque[int]


class LaneQueues:
    """Queued items by lane. Not thread-safe: the encoder's lock guards it.

    Args:
        shares: micro-batches of the interactive and of the bulk lane where both wait.
    """

    def __init__(self, sizes: MicroBatchSizes, max_sequences: int, shares: tuple[int, int]) -> None:
        self.tokens = 0
        self._sizes = sizes
        self._max_sequences = max_sequences
        self._shares = shares
        self._turn = 0
        self._queues: dict[Lane, deque[_Waiting]] = {lane: deque() for lane in Lane}

    def __bool__(self) -> bool:
        return any(self._queues.values())

    def add(self, job: Job) -> None:
        """Queue a message's open items."""
        items = deque(item for item in range(len(job.batch)) if item not in job.errors)
        self.tokens += sum(job.lengths[item] for item in items)
        self._queues[job.lane].append(_Waiting(job, items))

    def discard(self, job: Job) -> int:
        """Take a message's items out, those that are still queued; return their tokens."""
        queue = self._queues[job.lane]
        for waiting in queue:
            if waiting.job is job:
                queue.remove(waiting)
                tokens = sum(job.lengths[item] for item in waiting.items)
                job.open_items -= len(waiting.items)
                self.tokens -= tokens
                return tokens
        return 0

    def drain(self) -> list[Job]:
        """Empty the queues and return the messages that were in them."""
        jobs = [waiting.job for queue in self._queues.values() for waiting in queue]
        for queue in self._queues.values():
            queue.clear()
        self.tokens = 0
        return jobs

    def take(self, idle_workers: int) -> Window:
        """Take one micro-batch from the lane whose turn it is; leave the rest.

        Args:
            idle_workers: those that could start now, the caller included; a short queue is shared among them.
        """
        queue = self._queues[self._next_lane()]
        window = self._window(queue)
        lengths = np.asarray([job.lengths[item] for job, item in window], dtype=np.int64)
        budget_tokens = self._sizes.best(lengths)
        queued_tokens = int(lengths.sum())
        if idle_workers > 1 and queued_tokens < idle_workers * budget_tokens:
            share_tokens = -(-queued_tokens // idle_workers)
            budget_tokens = min(budget_tokens, max(_LEAST_SHARE_TOKENS, share_tokens))
        plan = plan_micro_batches(lengths, budget_tokens, self._max_sequences)
        # The oldest item always goes first, so that no length is starved by better-fitting newcomers.
        chosen = next(micro_batch for micro_batch in plan if 0 in micro_batch)
        taken = [window[index] for index in sorted(chosen)]
        self._remove(queue, taken)
        return taken

    def _next_lane(self) -> Lane:
        interactive, bulk = self._queues[Lane.INTERACTIVE], self._queues[Lane.BULK]
        if not interactive or not bulk:
            self._turn = 0
            return Lane.INTERACTIVE if interactive else Lane.BULK
        turn = self._turn
        self._turn = (turn + 1) % sum(self._shares)
        return Lane.INTERACTIVE if turn < self._shares[0] else Lane.BULK

    def _window(self, queue: deque[_Waiting]) -> list[tuple[Job, int]]:
        """The oldest items, hidden states and scores apart, since they come from different contexts."""
        most_tokens = _WINDOW_MICRO_BATCHES * self._sizes.largest
        window: list[tuple[Job, int]] = []
        tokens = 0
        wants_rank = int(queue[0].job.batch.pooling[queue[0].items[0]]) == _RANK
        for waiting in queue:
            job = waiting.job
            rank = job.batch.pooling == _RANK
            for item in waiting.items:
                if bool(rank[item]) is not wants_rank:
                    continue
                window.append((job, item))
                tokens += job.lengths[item]
                if tokens >= most_tokens:
                    return window
        return window

    def _remove(self, queue: deque[_Waiting], taken: Window) -> None:
        gone: dict[int, set[int]] = {}
        for job, item in taken:
            gone.setdefault(id(job), set()).add(item)
            self.tokens -= job.lengths[item]
        for waiting in list(queue):
            removed = gone.pop(id(waiting.job), None)
            if removed:
                waiting.items = deque(item for item in waiting.items if item not in removed)
                if not waiting.items:
                    queue.remove(waiting)
            if not gone:
                return

"""The Encoder stage: an engine on its own thread, fed with whatever is queued.

The thread looks at all queued messages before every micro-batch, so that a short interactive message waits for one
micro-batch at most, whatever bulk work lies in the queue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from cluster.batching.planning import plan_micro_batches
from cluster.engine.protocol import Engine
from cluster.errors import DeadlineExceeded, EngineError, PoolhouseError
from cluster.pooling import pool
from cluster.types import Float32, Lane, PoolingType, TokenBatch, VectorBatch, offsets_of

logger = logging.getLogger("poolhouse")

_RANK = PoolingType.RANK.code


@dataclass(slots=True)
class _Job:
    """One message in work."""

    batch: TokenBatch
    done: Future[VectorBatch]
    arrived_s: float
    results: list[Float32 | None]
    widths: np.ndarray
    open_items: int
    started_s: float | None = None
    encode_s: float = 0.0
    encoded_tokens: int = 0
    errors: dict[int, PoolhouseError] = field(default_factory=dict)


class Encoder:
    """Encodes packed messages. Thread-safe: any number of callers may ``submit``.

    Args:
        micro_batch_tokens: tokens of one engine call, at most the engine's own limit.
        shares: micro-batches of the interactive and of the bulk lane where both wait.
    """

    def __init__(
        self, engine: Engine, fingerprint: str, micro_batch_tokens: int, shares: tuple[int, int] = (4, 1)
    ) -> None:
        self.engine = engine
        self.fingerprint = fingerprint
        self.micro_batch_tokens = min(micro_batch_tokens, engine.max_micro_batch_tokens)
        self.encoded_tokens = 0
        self.pending_tokens = 0
        self._shares = shares
        self._turn = 0
        self._queues: dict[Lane, deque[tuple[_Job, list[int]]]] = {lane: deque() for lane in Lane}
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def submit(self, batch: TokenBatch) -> Future[VectorBatch]:
        """Queue a message; its future carries the result, or an EngineError that concerns the whole message."""
        job = _Job(
            batch=batch,
            done=Future(),
            arrived_s=time.monotonic(),
            results=[None] * len(batch),
            widths=np.ones(len(batch), dtype=np.int32),
            open_items=0,
            errors=dict(batch.errors),
        )
        if batch.fingerprint != self.fingerprint:
            job.done.set_exception(
                EngineError(
                    f"the message was tokenized for {batch.fingerprint} and this encoder serves {self.fingerprint}; "
                    "tokenizer and encoder run different versions of the model, send the request again"
                )
            )
            return job.done
        self._refuse_bad_items(job)
        items = [item for item in range(len(batch)) if item not in job.errors]
        job.open_items = len(items)
        if not items:
            self._finish(job)
            return job.done
        lanes = {batch.requests[owner].lane for owner in batch.owner.tolist()} if batch.requests else set()
        lane = Lane.BULK if lanes == {Lane.BULK} else Lane.INTERACTIVE
        with self._wake:
            if self._closed:
                job.done.set_exception(EngineError("the encoder is closed; send the request again"))
                return job.done
            self.pending_tokens += int(batch.lengths[items].sum())
            self._queues[lane].append((job, items))
            self._wake.notify()
        return job.done

    def close(self) -> None:
        """Stop after the micro-batch in work; queued messages fail. Frees the engine."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self.engine.close()

    def check_health(self) -> None:
        """Raise an EngineError when the engine's thread has ended."""
        if not self._thread.is_alive():
            raise EngineError("the encoder's thread has ended; the replica must be replaced")

    def _refuse_bad_items(self, job: _Job) -> None:
        """Give items that native code must never see an error of their own."""
        batch = job.batch
        lengths = batch.lengths
        for item in np.flatnonzero((lengths < 1) | (lengths > self.engine.max_sequence_tokens)).tolist():
            job.errors.setdefault(
                item,
                EngineError(
                    f"a sequence of {int(lengths[item])} tokens reached an encoder that takes 1 to "
                    f"{self.engine.max_sequence_tokens}; set models.….max_tokens to the encoder's context_tokens"
                ),
            )

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or any(self._queues.values()))
                if self._closed:
                    self._fail_queued()
                    return
                window = self._take_window()
            self._encode_window(window)

    def _fail_queued(self) -> None:
        for queue in self._queues.values():
            while queue:
                job, _ = queue.popleft()
                if not job.done.done():
                    job.done.set_exception(EngineError("the encoder was closed; send the request again"))

    def _take_window(self) -> list[tuple[_Job, int]]:
        """Take one micro-batch from what the lane whose turn it is has queued; leave the rest."""
        lane = self._next_lane()
        queue = self._queues[lane]
        # A window of several micro-batches gives the planner lengths to choose from without looking at a whole backlog.
        window: list[tuple[_Job, int]] = []
        tokens = 0
        wants_rank: bool | None = None
        for job, items in queue:
            for item in items:
                rank = int(job.batch.pooling[item]) == _RANK
                if wants_rank is None:
                    wants_rank = rank
                if rank is not wants_rank:
                    continue
                window.append((job, item))
                tokens += int(job.batch.offsets[item + 1] - job.batch.offsets[item])
            if tokens >= 8 * self.micro_batch_tokens:
                break
        lengths = np.asarray(
            [job.batch.offsets[item + 1] - job.batch.offsets[item] for job, item in window], dtype=np.int64
        )
        plan = plan_micro_batches(lengths, self.micro_batch_tokens, self.engine.max_sequences)
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

    @staticmethod
    def _remove(queue: deque[tuple[_Job, list[int]]], taken: list[tuple[_Job, int]]) -> None:
        gone: dict[int, set[int]] = {}
        for job, item in taken:
            gone.setdefault(id(job), set()).add(item)
        for entry in list(queue):
            job, items = entry
            removed = gone.get(id(job))
            if removed:
                items[:] = [item for item in items if item not in removed]
                if not items:
                    queue.remove(entry)

    def _encode_window(self, window: list[tuple[_Job, int]]) -> None:
        now = time.monotonic()
        live: list[tuple[_Job, int]] = []
        for job, item in window:
            remaining_s = self._remaining_s(job, item)
            if remaining_s is not None and now - job.arrived_s > remaining_s:
                self._settle(job, item, None, DeadlineExceeded("the request's deadline passed while it was queued"))
            else:
                job.started_s = job.started_s or now
                live.append((job, item))
        if not live:
            return
        sequences = [job.batch.ids(item) for job, item in live]
        token_ids = np.concatenate(sequences)
        offsets = offsets_of([len(ids) for ids in sequences])
        codes = np.asarray([job.batch.pooling[item] for job, item in live], dtype=np.uint8)
        try:
            if int(codes[0]) == _RANK:
                second = np.asarray([job.batch.second_segment[item] for job, item in live], dtype=np.int32)
                scores = self.engine.score(token_ids, offsets, second)
                parts = list(scores)
                widths = [scores.shape[1]] * len(live)
            else:
                hidden = self.engine.encode(token_ids, offsets)
                values, value_offsets, value_widths = pool(hidden, offsets, codes)
                parts = [values[value_offsets[i] : value_offsets[i + 1]] for i in range(len(live))]
                widths = value_widths.tolist()
        except Exception as error:
            logger.exception("a micro-batch of %d sequences failed", len(live))
            known = error if isinstance(error, PoolhouseError) else EngineError(f"the engine failed: {error}")
            for job, item in live:
                self._settle(job, item, None, known)
            return
        took_s = time.monotonic() - now
        self.encoded_tokens += len(token_ids)
        for (job, item), part, width in zip(live, parts, widths, strict=True):
            tokens = len(job.batch.ids(item))
            job.encode_s += took_s * tokens / len(token_ids)
            job.encoded_tokens += tokens
            job.widths[item] = width
            self._settle(job, item, part, None)

    @staticmethod
    def _remaining_s(job: _Job, item: int) -> float | None:
        return job.batch.requests[int(job.batch.owner[item])].remaining_s if job.batch.requests else None

    def _settle(self, job: _Job, item: int, values: Float32 | None, error: PoolhouseError | None) -> None:
        job.results[item] = values
        if error is not None:
            job.errors[item] = error
        job.open_items -= 1
        with self._wake:
            self.pending_tokens -= len(job.batch.ids(item))
        if job.open_items == 0:
            self._finish(job)

    def _finish(self, job: _Job) -> None:
        parts = [_NO_VALUES if values is None else values for values in job.results]
        result = VectorBatch(
            fingerprint=self.fingerprint,
            values=np.concatenate(parts) if parts else _NO_VALUES,
            offsets=offsets_of([len(part) for part in parts]),
            widths=job.widths,
            errors=job.errors,
            encoded_tokens=job.encoded_tokens,
            encode_s=job.encode_s,
            queue_s=(job.started_s or job.arrived_s) - job.arrived_s,
        )
        if not job.done.done():
            job.done.set_result(result)


_NO_VALUES: Float32 = np.zeros(0, dtype=np.float32)

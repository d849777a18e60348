"""The Encoder stage: an engine on threads of its own, one for each of its slots, fed with whatever is queued.

A thread looks at all queued messages before every micro-batch, so that a short interactive message waits for one
micro-batch at most, whatever bulk work lies in the queue.

A failed engine call is the error of its items. Whatever else ends a thread, or holds it up for far too long, is the end of the
encoder: all that is open fails at once, as work of a lost replica, so does what comes, and the health check says so.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
import weakref
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial

from cluster.batching.computing import compute
from cluster.batching.jobs import Job, Window
from cluster.batching.lanes import LaneQueues
from cluster.batching.load import EngineLoad
from cluster.batching.planning import MicroBatchSizes
from cluster.batching.reports import Backlogs, EncoderState, Throughput
from cluster.engine.protocol import Engine
from cluster.errors import DeadlineExceeded, EngineError, PoolhouseError, ReplicaLost, VersionChanged
from cluster.types import Backlog, Float32, ReplicaReport, TokenBatch, VectorBatch

logger = logging.getLogger("poolhouse")

# A call is stuck when it takes so long on top of so many times what it should: a machine that swaps is slow, not stuck.
_STUCK_S = 30.0
_STUCK_FACTOR = 10.0
_SLOWEST_TOKENS_PER_S = 20.0

# What a micro-batch may take that is in work when the encoder is closed. Serve waits for the end of a replica.
_CLOSE_WITHIN_S = 5.0


class Encoder:
    """Encodes packed messages. Thread-safe: any number of callers may ``submit``.

    Args:
        micro_batch_tokens: tokens of one engine call, or the sizes that a calibration found.
        shares: micro-batches of the interactive and of the bulk lane where both wait.
        nice: how much nicer the engine's threads are than the process, 0 to 19; without effect but on Linux.

    Attributes:
        encoded_tokens: tokens encoded so far.
        pending_tokens: tokens queued or in work.
    """

    def __init__(
        self,
        engine: Engine,
        fingerprint: str,
        micro_batch_tokens: int | MicroBatchSizes,
        shares: tuple[int, int] = (4, 1),
        nice: int = 0,
    ) -> None:
        self.engine = engine
        self.fingerprint = fingerprint
        self.sizes = (
            MicroBatchSizes.fixed(min(micro_batch_tokens, engine.max_micro_batch_tokens))
            if isinstance(micro_batch_tokens, int)
            else micro_batch_tokens
        )
        self.load = EngineLoad(self.sizes.largest, engine.slots)
        self.encoded_tokens = 0
        self.pending_tokens = 0
        self._queues = LaneQueues(self.sizes, engine.max_sequences, shares)
        self._lock = threading.Lock()
        self._wake = [threading.Condition(self._lock) for _ in range(engine.slots)]
        self._asleep: set[int] = set()
        self._busy_workers = 0
        self._throughput = Throughput(self.sizes.tokens_per_s)
        self._backlogs = Backlogs()
        self._open: set[Job] = set()
        self._lost: str | None = None
        self._is_freed = False
        self._nice = nice
        self._workers = [
            threading.Thread(target=self._run, args=(slot,), name=f"encoder-{slot}", daemon=True)
            for slot in range(engine.slots)
        ]
        for worker in self._workers:
            worker.start()

    def submit(self, batch: TokenBatch) -> Future[VectorBatch]:
        """Queue a message; its future carries the result, or an error that concerns the whole message.

        It may be cancelled: what is not in the engine yet is then not encoded. ReplicaLost: this encoder cannot encode any more.
        """
        job = Job.of(batch, self.engine.build)
        if batch.fingerprint != self.fingerprint:
            job.done.set_exception(
                VersionChanged(
                    f"the message was tokenized for {batch.fingerprint} and this encoder serves {self.fingerprint}; "
                    "tokenizer and encoder run different versions of the model, send the request again"
                )
            )
            return job.done
        self._refuse_bad_items(job)
        if job.open_items == 0:
            job.done.set_result(job.result(self.fingerprint))
            return job.done
        with self._lock:
            if self._lost is not None:
                job.done.set_exception(_loss(self._lost))
                return job.done
            if batch.backlog is not None:
                self._backlogs.note(batch.backlog)
            queued_tokens = self._queues.tokens
            self._queues.add(job)
            self._open.add(job)
            self.pending_tokens += self._queues.tokens - queued_tokens
            self._wake_one()
        # By a weak reference: the future must not hold the job that holds it, with all its values.
        job.done.add_done_callback(partial(self._forget, weakref.ref(job)))
        return job.done

    def _forget(self, reference: weakref.ref[Job], done: Future[VectorBatch]) -> None:
        job = reference()
        if job is None:
            return
        with self._lock:
            self._open.discard(job)
            if done.cancelled():
                # At once, not when its turn comes: whoever bounds the messages here counts a cancelled one no more.
                self.pending_tokens -= self._queues.discard(job)

    def hear(self, backlog: Backlog) -> None:
        """Take an ingress's word on its work for this encoder; messages bring it too."""
        with self._lock:
            self._backlogs.note(backlog)

    def state(self) -> EncoderState:
        """Return what autoscaling is to know."""
        with self._lock:
            return EncoderState(
                pending_tokens=self.pending_tokens,
                busy_s=self.load.busy_s,
                tokens_per_s=self._throughput.tokens_per_s,
                has_measured=self._throughput.has_measured,
                backlogs=self._backlogs.current(),
            )

    def close(self) -> None:
        """Stop after the micro-batches in work; queued messages fail, and so does what takes longer than a few seconds.

        Frees the engine, unless one of its calls has not come back.
        """
        for job in self._end("was closed"):
            self._fail(job)
        until_s = time.monotonic() + _CLOSE_WITHIN_S
        for worker in self._workers:
            worker.join(max(0.0, until_s - time.monotonic()))
        self._lose("was closed")
        if any(worker.is_alive() for worker in self._workers):
            # Native code still reads what it would free.
            logger.error("the engine has not come back from a call; its memory is not freed")
        elif not self._is_freed:
            self._is_freed = True
            self.engine.close()

    def check_health(self) -> None:
        """Raise an EngineError when the encoder is closed, a thread of it has ended, or a call takes far too long.

        What such a call holds up fails: nobody has to wait until the replica has been replaced.
        """
        if self._lost is None and not all(worker.is_alive() for worker in self._workers):
            self._lose("has lost a thread")
        for took_s, tokens in self.load.running:
            if self._lost is None and took_s > stuck_after_s(tokens, self._throughput.tokens_per_s):
                self._lose(f"has not come back from a call of {tokens} tokens for {took_s:.0f} s")
        if self._lost is not None:
            raise EngineError(f"the encoder {self._lost}; the replica must be replaced")

    def _end(self, why: str) -> list[Job]:
        """Take no more work; return the messages that were queued."""
        with self._lock:
            self._lost = self._lost or why
            self.pending_tokens -= self._queues.tokens
            jobs = self._queues.drain()
            for wake in self._wake:
                wake.notify()
        return jobs

    def _lose(self, why: str) -> None:
        """Give the encoder up: whatever is open fails at once, and so does what comes."""
        self._end(why)
        with self._lock:
            jobs = list(self._open)
        for job in jobs:
            self._fail(job)

    def _fail(self, job: Job) -> None:
        # Where its caller has cancelled it, or a thread has just answered it, that stands.
        with suppress(InvalidStateError):
            job.done.set_exception(_loss(self._lost))

    def _refuse_bad_items(self, job: Job) -> None:
        """Give items that native code must never see an error of their own."""
        most = self.engine.max_sequence_tokens
        for item, length in enumerate(job.lengths):
            if not 1 <= length <= most and item not in job.errors:
                job.refuse(
                    item,
                    EngineError(
                        f"a sequence of {length} tokens reached an encoder that takes 1 to {most}; "
                        "set models.….max_tokens to the encoder's context_tokens"
                    ),
                )

    def _run(self, slot: int) -> None:
        window: Window = ()
        try:
            self._give_way()
            while True:
                window, threads = self._next(slot)
                if not window:
                    return
                try:
                    self._encode(window, slot, threads)
                finally:
                    with self._lock:
                        self._busy_workers -= 1
                # A thread that waits for work keeps nothing of the last.
                window = ()
        except BaseException:
            # Before all else: a process that is out of memory may fail at the next line, too.
            self._lose("has lost a thread")
            with self._lock:
                self.pending_tokens -= sum(
                    job.lengths[item] for job, item in window if job.results[item] is None and item not in job.errors
                )
            logger.exception("a thread of the encoder has ended; the replica must be replaced")

    def _give_way(self) -> None:
        if self._nice and sys.platform == "linux":
            # Of this thread alone, and of the threads that llama.cpp makes for it; only Linux knows such a thing.
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + self._nice))

    def _next(self, slot: int) -> tuple[Window, int]:
        """Wait for a micro-batch; return it and its threads. An empty one means that there are no more to come."""
        with self._lock:
            while not (self._lost or self._queues):
                self._asleep.add(slot)
                self._wake[slot].wait()
                self._asleep.discard(slot)
            if self._lost:
                return (), 0
            window = self._queues.take(self.engine.slots - self._busy_workers)
            alone = slot == 0 and self._busy_workers == 0 and not self._queues
            self._busy_workers += 1
            if self._queues:
                self._wake_one()
            # All threads for a lone micro-batch; several at once share no barrier and so waste no core.
            return window, self.engine.threads if alone else max(1, self.engine.threads // self.engine.slots)

    def _wake_one(self) -> None:
        """Wake the first slot that sleeps; the lock is held.

        Only the first slot ever computes with all threads. Each thread that calls OpenMP has workers of its own, and when all
        those of the process are more than the CPUs, libgomp puts them to sleep at every barrier: a text of 17 tokens
        then took 6.5 ms instead of 4.5.
        """
        if self._asleep:
            slot = min(self._asleep)
            # Not when it has woken: until then, the next message must wake another one.
            self._asleep.discard(slot)
            self._wake[slot].notify()

    def _encode(self, window: Window, slot: int, threads: int) -> None:
        started_s = time.monotonic()
        live = self._in_time(window, started_s)
        if not live:
            return
        try:
            with self.load.call(sum(job.lengths[item] for job, item in live)):
                parts, widths = compute(self.engine, self.sizes, live, slot, threads)
        except MemoryError:
            # A micro-batch is bounded: a process without room for one has none for the next.
            raise
        except Exception as error:
            logger.exception("a micro-batch of %d sequences failed", len(live))
            known = error if isinstance(error, PoolhouseError) else EngineError(f"the engine failed: {error}")
            self._settle(live, known)
            return
        self._settle(live, None, parts, widths, (started_s, time.monotonic()))

    def _in_time(self, window: Window, now_s: float) -> Window:
        """Refuse the items whose deadline has passed or whose caller has gone; return the others."""
        live: list[tuple[Job, int]] = []
        late: list[tuple[Job, int]] = []
        for job, item in window:
            deadline_s = job.deadline_s(item)
            in_time = deadline_s is None or now_s <= deadline_s
            wanted = in_time and not job.done.cancelled() and item not in job.batch.gone
            (live if wanted else late).append((job, item))
        if late:
            self._settle(late, DeadlineExceeded("the request's deadline passed while it was queued"))
        return live

    def _settle(
        self,
        window: Window,
        error: PoolhouseError | None,
        parts: list[Float32] | None = None,
        widths: list[int] | None = None,
        span: tuple[float, float] = (math.nan, math.nan),
    ) -> None:
        """Hand the items their values, or all of them one error, and finish the messages that are complete."""
        tokens = sum(job.lengths[item] for job, item in window)
        finished: list[Job] = []
        with self._lock:
            for index, (job, item) in enumerate(window):
                self.pending_tokens -= job.lengths[item]
                if error is not None or parts is None or widths is None:
                    job.errors[item] = error or EngineError("the engine gave no values")
                else:
                    job.results[item] = parts[index]
                    job.widths[item] = widths[index]
                    job.encoded_tokens += job.lengths[item]
                    job.spans[item] = span
                job.open_items -= 1
                if job.open_items == 0:
                    finished.append(job)
            if error is None:
                self.encoded_tokens += tokens
                self._throughput.add(tokens, work_waits=bool(self._queues))
            for job in finished:
                elsewhere_tokens = self._backlogs.elsewhere(job.batch.backlog)
                job.report = ReplicaReport(self.engine.slots, self._throughput.tokens_per_s, elsewhere_tokens)
        for job in finished:
            if not job.done.done():
                result = job.result(self.fingerprint)
                # Where its caller has cancelled it meanwhile, or the encoder was given up, that stands.
                with suppress(InvalidStateError):
                    job.done.set_result(result)


def _loss(why: str | None) -> ReplicaLost:
    return ReplicaLost(f"the encoder {why} and gave this work back; send the request again", retry_after_s=1)


def stuck_after_s(tokens: int, tokens_per_s: float | None) -> float:
    """Return how long an engine's call of so many tokens may take before it counts as stuck.

    Args:
        tokens_per_s: the engine's speed; None where it was not measured.
    """
    return _STUCK_S + _STUCK_FACTOR * tokens / max(tokens_per_s or 0.0, _SLOWEST_TOKENS_PER_S)

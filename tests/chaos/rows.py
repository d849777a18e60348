"""The rows of ``make chaos``: each causes a fault in one wiring and judges what clients saw of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.chaos.broken import break_one, breaking_args
from tests.chaos.cluster import running
from tests.chaos.experiments import (
    OVERLOAD_CAPACITY_PER_S,
    TOKENS_OF_BODY,
    are_right,
    body_of,
    busy_process,
    disconnect,
    encoders_of,
    fake_args,
    hang,
    is_right,
    kill_replicas,
    matrices_of,
    overload,
    overload_args,
    two_of_each,
    under_load,
)
from tests.chaos.front import kill_haproxy, kill_manager
from tests.chaos.isolation import INNOCENT, disturb_isolation, isolation_args, send_deadly
from tests.chaos.load import Body, Check
from tests.chaos.memory import starve
from tests.chaos.messages import GRPC_LIMIT, large_requests, oversized_args
from tests.chaos.metrics import metrics, metrics_at_rest
from tests.chaos.nodes import lose_a_node
from tests.chaos.real import kill_real_encoders
from tests.chaos.report import Seen
from tests.chaos.slow import MAX_BODY_BYTES, read_slowly, stall_uploads
from tests.chaos.updates import update, update_badly, update_slowly, version_args

Run = Callable[[str], Seen]

SPLIT = ("split",)
BOTH = ("fused", "split")

_COST_S = 1 / 2_000
_RATE_PER_S = 25.0
# Each of these requests is three messages.
_UPDATE_RATE_PER_S = 8.0

_REFUSED_WITHIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, the wirings that can have it, what causes it, and its time limit with the start of the cluster."""

    name: str
    wirings: tuple[str, ...]
    run: Run
    limit_s: float = 150.0


def _overload(wiring: str) -> Seen:
    seen = Seen()
    with running(overload_args(wiring), {}) as cluster, busy_process():
        result = asyncio.run(overload(cluster, 20))
    seen.add(result.outcome)
    refusal_p99_s = result.refusal_p99_s
    seen.remarks.append(
        f"goodput {result.goodput_share:.2f} of capacity, refused within {refusal_p99_s * 1e3:.0f} ms at p99, "
        f"normal {result.normal_after_s:.1f} s after"
    )
    seen.demand(set(result.outcome.statuses) == {200, 429}, f"statuses {dict(result.outcome.statuses)}")
    seen.demand(result.goodput_share >= 0.9, "goodput below 0.9 of capacity")
    seen.demand(refusal_p99_s <= _REFUSED_WITHIN_S, f"refusals took {refusal_p99_s * 1e3:.0f} ms at p99")
    seen.demand(result.normal_after_s <= 5, f"not normal within 5 s after, but within {result.normal_after_s:.1f} s")
    return seen


def _requests_for(deployment: str) -> tuple[float, float, Body, Check]:
    """Seconds for each token, requests a second, their bodies and the check of their answers."""
    if deployment == "Pooler":
        # An ingress finishes a few vectors by itself.
        return 1 / 100_000, 5.0, matrices_of, are_right
    return _COST_S, _RATE_PER_S, body_of, is_right


def _kill(deployment: str, wiring: str) -> Seen:
    seen = Seen()
    cost_s, rate_per_s, body, check = _requests_for(deployment)
    with running(fake_args(wiring, fake_seconds_per_token=cost_s), two_of_each(wiring)) as cluster:
        losses = asyncio.run(kill_replicas(cluster, deployment, 12, rate_per_s, body, check))
    seen.add(losses.outcome)
    seen.remarks.append(f"{losses.kills} kills, replaced within {max(losses.replaced_s):.1f} s")
    _demand_after_losses(seen, losses.outcome, deployment, losses.kills)
    return seen


def _kill_real(wiring: str) -> Seen:
    seen = Seen()
    capacity_per_s, losses = asyncio.run(kill_real_encoders(wiring, 20))
    seen.add(losses.outcome)
    seen.remarks.append(
        f"half of {capacity_per_s:.0f} requests/s, {losses.kills} kills, replaced within {max(losses.replaced_s):.1f} s"
    )
    _demand_after_losses(seen, losses.outcome, encoders_of(wiring), losses.kills)
    return seen


def _demand_after_losses(seen: Seen, outcome: Any, deployment: str, losses: int) -> None:
    """What an ingress holds fails with it; what any other replica holds is sent again."""
    if deployment == "Ingress":
        seen.demand_brief_failures(outcome, losses)
    else:
        seen.demand_all_answered(outcome)


def _hang(deployment: str, wiring: str) -> Seen:
    seen = Seen()
    cost_s, rate_per_s, body, check = _requests_for(deployment)
    stopped_s = 5.0
    with running(fake_args(wiring, fake_seconds_per_token=cost_s), two_of_each(wiring)) as cluster:
        outcome = asyncio.run(hang(cluster, deployment, stopped_s, rate_per_s, body, check))
    seen.add(outcome)
    # What a stopped ingress holds has no way out before it goes on.
    seen.demand_all_answered(outcome, stopped_s + 2.0 if deployment == "Ingress" else 2.0)
    return seen


def _broken_engine(fault: str, wiring: str) -> Seen:
    seen = Seen()
    with running(breaking_args(wiring, fault), two_of_each(wiring)) as cluster:
        broken = asyncio.run(break_one(cluster, encoders_of(wiring), 15.0, 120.0))
    seen.add(broken.during, "until it was replaced")
    seen.add(broken.after, "afterwards")
    seen.demand(broken.replaced_s is not None, "the broken replica was not replaced")
    seen.remarks.append("not replaced" if broken.replaced_s is None else f"replaced after {broken.replaced_s:.0f} s")
    if wiring == "split":
        seen.demand_all_answered(broken.during)
    seen.demand_all_answered(broken.after)
    return seen


def _controller(wiring: str) -> Seen:
    seen = Seen()
    with running(fake_args(wiring, fake_seconds_per_token=_COST_S), two_of_each(wiring)) as cluster:
        outcome = asyncio.run(under_load(cluster, _RATE_PER_S, cluster.kill_controller, 12))
    seen.add(outcome)
    seen.demand_all_answered(outcome)
    return seen


def _haproxy(wiring: str) -> Seen:
    seen = Seen()
    with running(fake_args(wiring, fake_seconds_per_token=_COST_S), two_of_each(wiring)) as cluster:
        outcome = asyncio.run(kill_haproxy(cluster, _RATE_PER_S))
    seen.add(outcome)
    seen.demand_brief_failures(outcome)
    return seen


def _manager(wiring: str) -> Seen:
    seen = Seen()
    with running(fake_args(wiring, fake_seconds_per_token=_COST_S), two_of_each(wiring)) as cluster:
        killed, ingresses_replaced = asyncio.run(kill_manager(cluster, _RATE_PER_S))
    seen.add(killed)
    seen.demand_brief_failures(killed)
    seen.add(ingresses_replaced, "then both ingresses, one after the other")
    seen.demand_brief_failures(ingresses_replaced, faults=2)
    return seen


def _node(wiring: str) -> Seen:
    seen = Seen()
    outcome = asyncio.run(lose_a_node(wiring, _RATE_PER_S))
    seen.add(outcome)
    seen.demand_all_answered(outcome)
    return seen


def _update(wiring: str) -> Seen:
    seen = Seen()
    replicas = two_of_each(wiring)
    with running(version_args(0, wiring), replicas) as cluster:
        outcome = asyncio.run(update(cluster, version_args(1, wiring), replicas, _UPDATE_RATE_PER_S))
    seen.add(outcome)
    seen.demand_all_answered(outcome)
    return seen


def _slow_update(wiring: str) -> Seen:
    seen = Seen()
    replicas = two_of_each(wiring)
    with running(version_args(0, wiring), replicas) as cluster:
        outcome = asyncio.run(update_slowly(cluster, version_args(1, wiring), replicas, 8.0, _UPDATE_RATE_PER_S))
    seen.add(outcome)
    seen.demand_all_answered(outcome, within_s=5.0)
    return seen


def _bad_update(wiring: str) -> Seen:
    seen = Seen()
    replicas = two_of_each(wiring)
    with running(version_args(0, wiring), replicas) as cluster:
        outcome = asyncio.run(update_badly(cluster, version_args(1, wiring), replicas, 20.0, _UPDATE_RATE_PER_S))
    seen.add(outcome)
    seen.demand_all_answered(outcome, within_s=5.0)
    return seen


def _disconnects(wiring: str) -> Seen:
    seen = Seen()
    with running(overload_args(wiring), {}) as cluster:
        left = asyncio.run(disconnect(cluster, 1_000))
        # Waits until all counters of waiting work are at zero.
        encoded_s = metrics_at_rest(least_requests=900)["poolhouse_encode_seconds_sum"]
        outcome = asyncio.run(under_load(cluster, 5, lambda: None, 3))
    seen.add(outcome, "afterwards")
    seen.remarks.append(
        f"1,000 clients left within {left.seconds:.1f} s, {left.answered} of them answered; the encoder worked {encoded_s:.1f} s"
    )
    # Two messages may be on their way when the last client goes; a message of many holds what fills a micro-batch.
    allowed_s = left.seconds + 2 * 512 / (TOKENS_OF_BODY * OVERLOAD_CAPACITY_PER_S)
    seen.demand(encoded_s <= allowed_s, f"the encoder worked {encoded_s:.1f} s of {allowed_s:.1f} s")
    seen.demand_all_answered(outcome, within_s=2.0)
    return seen


def _deadly_text(wiring: str) -> Seen:
    seen = Seen()
    with running(fake_args(wiring, fake_seconds_per_token=_COST_S), two_of_each(wiring)) as cluster:
        answers, others = asyncio.run(send_deadly(cluster, 10.0))
    seen.add(others, "other texts")
    seen.remarks += [f"the deadly one: {status or 'broken'} after {seconds:.1f} s" for status, _, seconds in answers]
    if wiring == "split":
        seen.demand_all_answered(others)
        alone = all(status == 422 and "input[1]" in body and "input[0]" not in body for status, body, _ in answers)
        seen.demand(alone, f"the deadly text was not refused alone: {answers}")
    else:
        # One process holds all stages, so the text takes with it what else is there.
        seen.demand(all(status != 200 for status, _, _ in answers), "the deadly text was answered")
        seen.demand_brief_failures(others, faults=len(answers))
    return seen


def _child_killed(wiring: str) -> Seen:
    seen = Seen()
    with running(isolation_args(), two_of_each(wiring)) as cluster:
        asked = asyncio.run(disturb_isolation(cluster, lambda child: os.kill(child, 9)))
    _judge_isolation(seen, asked)
    return seen


def _update_while_isolating(wiring: str) -> Seen:
    seen = Seen()
    replicas = two_of_each(wiring)
    new = {**isolation_args(), "models": {"m": {"source": "fake", "prompts": {"query": "now: "}}}}
    with running(isolation_args(), replicas) as cluster:
        asked = asyncio.run(disturb_isolation(cluster, lambda child: cluster.deploy(new, replicas)))
    _judge_isolation(seen, asked)
    return seen


def _judge_isolation(seen: Seen, asked: Any) -> None:
    seen.add(asked.again, "the innocent texts, sent again")
    seen.remarks.append(f"all together with the deadly one: {asked.status or 'broken'}")
    seen.demand_all_answered(asked.again)
    convicted = asked.status == 422 and any(f"input[{number}]" in asked.content for number in range(INNOCENT))
    seen.demand(not convicted, f"innocent texts were convicted: {asked.content}")
    seen.demand(asked.status != 200, "a deadly text was answered")


def _oversized(wiring: str) -> Seen:
    seen = Seen()
    os.environ["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"] = str(GRPC_LIMIT)
    with running(oversized_args(), two_of_each(wiring)) as cluster:
        outcome = asyncio.run(large_requests(cluster, 10.0, 3.0))
        again = metrics().get("poolhouse_retries_total", 0.0)
    seen.add(outcome)
    seen.demand_all_answered(outcome)
    seen.demand(not again, f"{again:.0f} messages were sent again")
    return seen


def _stalled_uploads(wiring: str) -> Seen:
    seen = Seen()
    args = fake_args(wiring, fake_seconds_per_token=_COST_S)
    args["limits"] = {"timeout_s": 60.0, "max_body_bytes": MAX_BODY_BYTES}
    with running(args, {}) as cluster:
        stalled = asyncio.run(stall_uploads(cluster, 64, 20.0, 8.0, 60.0))
    seen.add(stalled.beside, "beside 64 stalled uploads")
    seen.demand_all_answered(stalled.beside)
    _demand_as_quick(seen, stalled.quiet.percentile_s(200, 99), stalled.beside.percentile_s(200, 99))
    cut_off = f"{len(stalled.cut_off_s)} were cut off, the last after {max(stalled.cut_off_s, default=0.0):.0f} s"
    seen.remarks.append(cut_off)
    seen.demand(not stalled.left, f"{stalled.left} stalled uploads were left open")
    return seen


def _slow_reads(wiring: str) -> Seen:
    seen = Seen()
    # Answers may hold four times their largest together; the rest is what a process grows by with its work.
    most_answer_bytes = 32 * 2**20
    most_growth_mb = 4 * most_answer_bytes / 1e6 + 100.0
    deployments = list(two_of_each(wiring))
    args = fake_args(wiring)
    args = {**args, "limits": {**args["limits"], "max_answer_bytes": most_answer_bytes}}
    with running(args, {}) as cluster:
        quiet = asyncio.run(under_load(cluster, 20.0, lambda: None, 5.0))
        slow = asyncio.run(read_slowly(cluster, deployments, 10_000, 500, 32, 20.0, 110.0))
    seen.add(slow.beside, "beside 10,000 answers read slowly")
    seen.demand_all_answered(slow.beside)
    seen.demand(
        slow.beside.percentile_s(200, 99) <= 1.0 + quiet.percentile_s(200, 99), "others waited longer than a second"
    )
    growth = ", ".join(f"{name} {mb:.0f} MB" for name, mb in slow.growth_mb.items())
    statuses, unread = (
        ", ".join(f"{status or 'cut off'}: {count}" for status, count in sorted(counts.items()))
        for counts in (slow.statuses, slow.unread)
    )
    seen.remarks += [f"read slowly: {statuses}", f"32 not read before the end: {unread}", f"grew by {growth}"]
    seen.demand(
        max(slow.growth_mb.values()) <= most_growth_mb, f"memory grew by more than {most_growth_mb:.0f} MB: {growth}"
    )
    seen.demand(not slow.wrong, f"{slow.wrong} of the answers read slowly are wrong")
    seen.demand(set(slow.statuses) <= {0, 200, 413, 429, 503}, f"statuses {statuses} of those who read slowly")
    seen.demand(slow.statuses[200] >= 9_000, f"only {slow.statuses[200]} of 10,000 slow readers got their answer")
    return seen


def _memory_pressure(wiring: str) -> Seen:
    seen = Seen()
    with running(fake_args(wiring), two_of_each(wiring)) as cluster:
        starved = asyncio.run(starve(cluster, encoders_of(wiring), 8.0, 60.0, 6.0))
    seen.add(starved.during, "while one replica gets no memory")
    seen.add(starved.after, "afterwards")
    replaced = "stayed" if starved.replaced_s is None else f"replaced after {starved.replaced_s:.0f} s"
    seen.remarks.append(f"the replica {replaced}")
    seen.demand(set(starved.during.statuses) <= {0, 200, 500, 503, 504}, f"statuses {dict(starved.during.statuses)}")
    seen.demand_all_answered(starved.after)
    return seen


def _demand_as_quick(seen: Seen, quiet_s: float, beside_s: float) -> None:
    seen.remarks.append(f"p99 {quiet_s * 1e3:.0f} ms before, {beside_s * 1e3:.0f} ms beside")
    seen.demand(beside_s <= 2 * quiet_s + 0.1, f"p99 of {beside_s * 1e3:.0f} ms, {quiet_s * 1e3:.0f} ms before")


ROWS = [
    Row("overload", BOTH, _overload),
    Row("kill-real-encoder", BOTH, _kill_real, 200),
    Row("kill-encoder", SPLIT, partial(_kill, "Encoder-e")),
    Row("kill-tokenizer", SPLIT, partial(_kill, "Tokenizer")),
    Row("kill-pooler", SPLIT, partial(_kill, "Pooler")),
    Row("kill-ingress", BOTH, partial(_kill, "Ingress")),
    Row("hang-encoder", SPLIT, partial(_hang, "Encoder-e")),
    Row("hang-tokenizer", SPLIT, partial(_hang, "Tokenizer")),
    Row("hang-pooler", SPLIT, partial(_hang, "Pooler")),
    Row("hang-ingress", BOTH, partial(_hang, "Ingress")),
    Row("stuck-engine", BOTH, partial(_broken_engine, "hang"), 240),
    Row("lost-thread", BOTH, partial(_broken_engine, "out_of_memory"), 240),
    Row("memory-pressure", BOTH, _memory_pressure, 180),
    Row("kill-haproxy", BOTH, _haproxy),
    Row("kill-proxy-actor", BOTH, _manager, 200),
    Row("kill-controller", BOTH, _controller),
    Row("lose-node", BOTH, _node, 180),
    Row("update", BOTH, _update),
    Row("slow-update", BOTH, _slow_update, 180),
    Row("bad-update", BOTH, _bad_update),
    Row("disconnects", BOTH, _disconnects),
    Row("deadly-text", BOTH, _deadly_text),
    Row("child-killed", SPLIT, _child_killed, 200),
    Row("update-while-isolating", SPLIT, _update_while_isolating, 240),
    Row("oversized", SPLIT, _oversized),
    Row("stalled-uploads", BOTH, _stalled_uploads),
    Row("slow-readers", BOTH, _slow_reads, 210),
]

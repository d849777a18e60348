"""``make chaos``: every fault under load, each in a process of its own with a time limit; prints what clients saw.

python -m tests.chaos [NAME …] runs all or some; one that does not hold what it must ends the run with status 1.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

from tests.chaos.cluster import running
from tests.chaos.experiments import (
    OVERLOAD_CAPACITY_PER_S,
    TOKENS_OF_BODY,
    are_right,
    body_of,
    disconnect,
    fake_args,
    hang,
    is_right,
    kill_replicas,
    matrices_of,
    overload,
    overload_args,
    under_load,
)
from tests.chaos.front import failures_s, kill_haproxy, kill_manager
from tests.chaos.load import Body, Check, Outcome
from tests.chaos.metrics import metrics_at_rest
from tests.chaos.nodes import lose_a_node
from tests.chaos.real import kill_real_encoders
from tests.chaos.updates import update, update_badly, update_slowly, version_args

_TWO = {"Tokenizer": 2, "Pooler": 2, "Encoder-e": 2}
_COST = 1 / 2_000
_RATE_PER_S = 25.0

# Each of these requests is three messages.
_UPDATE_RATE_PER_S = 8.0


def _overload() -> bool:
    with running(overload_args(), {}) as cluster:
        result = asyncio.run(overload(cluster, 60))
    _show(result.outcome)
    print(
        f"  goodput {result.goodput_share:.2f} of capacity, refusals within {result.refusal_p99_s * 1e3:.0f} ms at p99, "
        f"normal {result.normal_after_s:.1f} s after"
    )
    return (
        set(result.outcome.statuses) == {200, 429}
        and result.goodput_share >= 0.9
        and result.refusal_p99_s <= 0.05
        and result.normal_after_s <= 5
        and not result.outcome.wrong
    )


def _kill(deployment: str) -> bool:
    cost, rate_per_s, body, check = _requests_for(deployment)
    with running(fake_args(fake_seconds_per_token=cost), _TWO) as cluster:
        losses = asyncio.run(kill_replicas(cluster, deployment, 60, rate_per_s, body, check))
    _show(losses.outcome)
    print(f"  {losses.kills} kills, replaced within {max(losses.replaced_s):.1f} s")
    return not losses.outcome.errors and not losses.outcome.wrong


def _kill_real() -> bool:
    losses = asyncio.run(kill_real_encoders(180))
    _show(losses.outcome)
    print(f"  {losses.kills} kills, replaced within {max(losses.replaced_s):.1f} s")
    return not losses.outcome.errors and not losses.outcome.wrong


def _requests_for(deployment: str) -> tuple[float, float, Body, Check]:
    """Seconds for each token, requests a second, their bodies and the check of their answers."""
    if deployment == "Pooler":
        # An ingress finishes a few vectors by itself.
        return 1 / 100_000, 5.0, matrices_of, are_right
    return _COST, _RATE_PER_S, body_of, is_right


def _hang(deployment: str) -> bool:
    cost, rate_per_s, body, check = _requests_for(deployment)
    with running(fake_args(fake_seconds_per_token=cost), _TWO) as cluster:
        outcome = asyncio.run(hang(cluster, deployment, 10, rate_per_s, body, check))
    _show(outcome)
    return not outcome.errors and not outcome.wrong and outcome.percentile_s(200, 100) <= 2.0


def _controller() -> bool:
    with running(fake_args(fake_seconds_per_token=_COST), _TWO) as cluster:
        outcome = asyncio.run(under_load(cluster, _RATE_PER_S, cluster.kill_controller, 20))
    _show(outcome)
    return not outcome.errors and not outcome.wrong


def _ingress() -> bool:
    with running(fake_args(fake_seconds_per_token=_COST), {**_TWO, "Ingress": 2}) as cluster:
        outcome = asyncio.run(under_load(cluster, _RATE_PER_S, lambda: cluster.kill("Ingress"), 10))
    _show(outcome)
    return _failed_briefly(outcome)


def _haproxy() -> bool:
    with running(fake_args(fake_seconds_per_token=_COST), {**_TWO, "Ingress": 2}) as cluster:
        outcome = asyncio.run(kill_haproxy(cluster, _RATE_PER_S))
    _show(outcome)
    return _failed_briefly(outcome)


def _manager() -> bool:
    with running(fake_args(fake_seconds_per_token=_COST), {**_TWO, "Ingress": 2}) as cluster:
        killed, ingresses_replaced = asyncio.run(kill_manager(cluster, _RATE_PER_S))
    _show(killed)
    print("  afterwards both ingresses replaced, one after the other:")
    _show(ingresses_replaced)
    return _failed_briefly(killed) and _failed_briefly(ingresses_replaced, faults=2)


def _failed_briefly(outcome: Outcome, faults: int = 1) -> bool:
    """Whether each fault let requests fail for no more than two seconds."""
    bursts = failures_s(outcome)
    print("  failures: " + (", ".join(f"{len(b)} within {b[-1] - b[0]:.1f} s" for b in bursts) or "none"))
    return len(bursts) <= faults and all(b[-1] - b[0] <= 2.0 for b in bursts) and not outcome.wrong


def _update() -> bool:
    replicas = {**_TWO, "Ingress": 2}
    with running(version_args(0), replicas) as cluster:
        outcome = asyncio.run(update(cluster, version_args(1), replicas, _UPDATE_RATE_PER_S))
    _show(outcome)
    return not outcome.errors and not outcome.wrong


def _slow_update() -> bool:
    replicas = {**_TWO, "Ingress": 2}
    with running(version_args(0), replicas) as cluster:
        outcome = asyncio.run(update_slowly(cluster, version_args(1), replicas, 12.0, _UPDATE_RATE_PER_S))
    _show(outcome)
    return not outcome.errors and not outcome.wrong and outcome.percentile_s(200, 100) <= 5.0


def _bad_update() -> bool:
    replicas = {**_TWO, "Ingress": 2}
    with running(version_args(0), replicas) as cluster:
        outcome = asyncio.run(update_badly(cluster, replicas, 30.0, _UPDATE_RATE_PER_S))
    _show(outcome)
    return not outcome.errors and not outcome.wrong and outcome.percentile_s(200, 100) <= 5.0


def _disconnects() -> bool:
    with running(overload_args(), {}) as cluster:
        left = asyncio.run(disconnect(cluster, 1_000))
        seen = metrics_at_rest(least_requests=900)
        outcome = asyncio.run(under_load(cluster, 5, lambda: None, 3))
    tokens_per_s = TOKENS_OF_BODY * OVERLOAD_CAPACITY_PER_S
    encoded_s = seen["poolhouse_encode_seconds_sum"]
    print(
        f"  1000 clients left within {left.seconds:.1f} s, {left.answered} of them after their answer; the encoder worked "
        f"{encoded_s:.1f} s; then all counters were at zero, and afterwards:"
    )
    _show(outcome)
    # Two messages may be on their way when the last client goes; a message of many holds what fills a micro-batch.
    allowed_s = left.seconds + 2 * 512 / tokens_per_s
    return encoded_s <= allowed_s and not outcome.errors and outcome.percentile_s(200, 100) < 2.0


def _node() -> bool:
    outcome = asyncio.run(lose_a_node(_RATE_PER_S))
    _show(outcome)
    return not outcome.errors and not outcome.wrong


def _show(outcome: Outcome) -> None:
    print(
        f"  answers {dict(outcome.statuses)}, wrong {outcome.wrong}, "
        f"p50 {outcome.percentile_s(200, 50) * 1e3:.0f} ms, slowest {outcome.percentile_s(200, 100):.2f} s"
    )
    if outcome.retried:
        print(f"  sent once more {outcome.retried}")
    for body in outcome.bodies:
        print("  ", body or "(the connection broke)")


# Name → experiment and its time limit in seconds, the start of the cluster included.
EXPERIMENTS = {
    "overload": (_overload, 180),
    "kill-encoder-real": (_kill_real, 420),
    "kill-encoder": (lambda: _kill("Encoder-e"), 240),
    "kill-tokenizer": (lambda: _kill("Tokenizer"), 240),
    "kill-pooler": (lambda: _kill("Pooler"), 240),
    "hang-encoder": (lambda: _hang("Encoder-e"), 150),
    "hang-tokenizer": (lambda: _hang("Tokenizer"), 150),
    "hang-pooler": (lambda: _hang("Pooler"), 150),
    "kill-ingress": (_ingress, 150),
    "kill-haproxy": (_haproxy, 180),
    "kill-proxy-actor": (_manager, 240),
    "kill-controller": (_controller, 150),
    "lose-node": (_node, 180),
    "update": (_update, 180),
    "slow-update": (_slow_update, 240),
    "bad-update": (_bad_update, 180),
    "disconnects": (_disconnects, 150),
}


def main(names: list[str]) -> int:
    """Run the experiments named, or all; returns the exit status."""
    if names[:1] == ["--here"]:
        return 0 if EXPERIMENTS[names[1]][0]() else 1
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    failed = []
    for name in names or EXPERIMENTS:
        print(name, flush=True)
        limit_s = EXPERIMENTS[name][1]
        process = subprocess.Popen([sys.executable, "-m", "tests.chaos", "--here", name], start_new_session=True)
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            print(f"  not over within {limit_s} s")
            status = 1
        finally:
            if process.poll() is None:
                # Ray's own processes end with the one that started them.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status:
            failed.append(name)
    print("failed: " + ", ".join(failed) if failed else "all held")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

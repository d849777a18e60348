"""Autoscaling policies: how many replicas a deployment should run.

Serve pickles this module into its controller, so it imports the standard library only. A policy's arguments are part of the
application's version, and a change of them would restart it; the targets therefore come from the replicas, which learn them
from ``user_config`` and publish them with everything else (``deployments.reporting``). Serve applies the delays, the minimum
and the maximum, and starts the first replica of a sleeping deployment by itself when a message waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BACKLOG = "backlog_tokens:"
"""Prefix of a measure: tokens admitted by the ingress whose id follows and not yet answered."""

REPORTED = "backlog_reported_s:"
"""Prefix of a measure: when, by its own clock, that ingress said so."""

Series = Mapping[str, Mapping[Any, Sequence[Any]]]


class TokenPolicy:
    """Encoders by work: enough replicas to encode what waits within the target, and to leave none busy without a pause.

    The larger of two figures counts. By waiting: (tokens that the ingresses have admitted and that are not answered yet, wherever
    they are) / (tokens per second of one replica × ``target_wait_s``). By load: the replicas' shares of busy time added up, over
    ``target_busy_share``; it keeps a steady load whose queues are empty from losing the replicas that empty them.

    Where no replica knows its speed, load alone counts, and one replica at least while anything waits: no guess at a speed can
    run a burst to the maximum, and replicas that are busy without a pause still get others beside them, step by step.
    """

    def __call__(self, ctx: Any) -> tuple[float, dict[str, Any]]:
        """Return the wanted number of replicas for Serve's context, and what it was made of."""
        measures: Series = ctx.raw_metrics or {}
        pending = _latest(measures, "pending_tokens")
        rate = _tokens_per_s(measures)
        target_wait_s = _mean(_latest(measures, "target_wait_s"))
        if not pending or not target_wait_s:
            # Nobody has reported yet: the replicas are starting, or the controller has just come back.
            return float(ctx.target_num_replicas), {}
        # What is in the replicas is part of the ingresses' account, and known sooner.
        tokens = max(sum(pending), backlog_of_ingresses(measures))
        by_load = _busy_replicas(measures)
        by_waiting = tokens / (rate * target_wait_s) if rate else 0.0
        wanted = max(by_waiting, by_load)
        if tokens and not wanted:
            wanted = 1.0
        return wanted, {"tokens": tokens, "by_waiting": by_waiting, "by_load": by_load}


class BusyPolicy:
    """Tokenizer, Pooler and Ingress by the processor time that their processes use, and by what waits for them.

    A replica runs Python on one core: its share of busy time is its processor seconds for each second of the clock.
    """

    def __call__(self, ctx: Any) -> tuple[float, dict[str, Any]]:
        """Return the wanted number of replicas for Serve's context, and what it was made of."""
        measures: Series = ctx.raw_metrics or {}
        if not measures.get("busy_share"):
            return float(ctx.target_num_replicas), {}
        by_load = _busy_replicas(measures)
        by_requests = float(ctx.total_num_requests) / float(ctx.config.get_target_ongoing_requests())
        return max(by_load, by_requests), {"by_load": by_load, "by_requests": by_requests}


def backlog_of_ingresses(measures: Series) -> float:
    """Tokens admitted and not yet answered. Several replicas may have heard from one ingress; its newest word counts."""
    total = 0.0
    for name, by_replica in measures.items():
        if not name.startswith(BACKLOG):
            continue
        told = measures.get(REPORTED + name.removeprefix(BACKLOG), {})
        newest = max(
            (
                (told[replica][-1].value, series[-1].value)
                for replica, series in by_replica.items()
                if series and told.get(replica)
            ),
            default=(0.0, 0.0),
        )
        total += newest[1]
    return total


def _tokens_per_s(measures: Series) -> float:
    """Speed of one replica: the mean of those that have measured it, else of those that were told one; 0 where nobody knows.

    A replica that knows nothing yet counts with neither: its 0 is no speed.
    """
    known = {replica: speed for replica, speed in _latest_of(measures, "tokens_per_s").items() if speed > 0}
    have_measured = _latest_of(measures, "has_measured")
    measured = [speed for replica, speed in known.items() if have_measured.get(replica)]
    return _mean(measured or list(known.values()))


def _busy_replicas(measures: Series) -> float:
    """How many replicas the work of the look-back period would have kept as busy as the target allows."""
    target = _mean(_latest(measures, "target_busy_share"))
    shares = [_mean([point.value for point in series]) for series in measures.get("busy_share", {}).values()]
    return sum(shares) / target if target else 0.0


def _latest(measures: Series, name: str) -> list[float]:
    return list(_latest_of(measures, name).values())


def _latest_of(measures: Series, name: str) -> dict[Any, float]:
    return {replica: series[-1].value for replica, series in measures.get(name, {}).items() if series}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

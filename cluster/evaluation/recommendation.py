"""Which pooling type to use, why, and which choices are known to be wrong whatever the figures say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.evaluation.bootstrap import Interval
from cluster.evaluation.sources import SourceFacts
from cluster.evaluation.tasks import TaskResult
from cluster.types import PoolingType


@dataclass(frozen=True, slots=True)
class Verdict:
    """One pooling type against the best one, on one task's deciding metric.

    Attributes:
        difference: best minus other, with an interval that holds for all verdicts of the task at once.
        noise: the interval holds zero, so the data cannot tell the two apart.
    """

    task: str
    metric: str
    best: PoolingType
    other: PoolingType
    difference: Interval
    noise: bool


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to use.

    Attributes:
        reason: sentences with the figures in them.
        tied: further pooling types that the data cannot tell from the recommended one.
        verdicts: of all tasks.
    """

    pooling: PoolingType
    reason: str
    tied: tuple[PoolingType, ...]
    verdicts: list[Verdict]


def recommend(facts: SourceFacts, pooling_types: Sequence[PoolingType], tasks: Sequence[TaskResult]) -> Recommendation:
    """Recommend a pooling type.

    Each task strikes those that are worse than its best by more than noise. Of those left the one that the model was
    trained for wins; where that was struck or is unknown, the best of the first task.
    """
    verdicts = [verdict for task in tasks for verdict in _judge(task, tuple(pooling_types))]
    left = tuple(pooling_types)
    for task in tasks:
        best = task.deciding.best(left)
        comparisons = len(left) - 1
        left = tuple(p for p in left if p is best or task.deciding.difference(best, p, comparisons).low <= 0)
    trained = facts.trained_pooling
    best = tasks[0].deciding.best(left)
    chosen = trained if trained is not None and trained in left else best
    tied = tuple(pooling for pooling in left if pooling is not chosen)
    return Recommendation(chosen, " ".join(_reasons(facts, chosen, tied, tasks, pooling_types)), tied, verdicts)


def _judge(task: TaskResult, pooling_types: tuple[PoolingType, ...]) -> list[Verdict]:
    best = task.deciding.best(pooling_types)
    others = [pooling for pooling in pooling_types if pooling is not best]
    verdicts = []
    for other in others:
        difference = task.deciding.difference(best, other, len(others))
        verdicts.append(Verdict(task.kind, task.deciding.name, best, other, difference, difference.low <= 0))
    return verdicts


def _reasons(
    facts: SourceFacts,
    chosen: PoolingType,
    tied: Sequence[PoolingType],
    tasks: Sequence[TaskResult],
    pooling_types: Sequence[PoolingType],
) -> list[str]:
    sentences = []
    for task in tasks:
        metric = task.deciding
        best = metric.best(tuple(pooling_types))
        figure = metric.estimates[chosen]
        shown = f"{metric.name} {figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f}) on {task.size}"
        if best is chosen:
            runner_up = (
                metric.best(tuple(p for p in pooling_types if p is not chosen)) if len(pooling_types) > 1 else None
            )
            ahead = (
                f", ahead of {runner_up} by {_ahead(metric.difference(best, runner_up, len(pooling_types) - 1))}"
                if runner_up
                else ""
            )
            sentences.append(f"{chosen} has the highest {shown}{ahead}.")
        else:
            sentences.append(f"{chosen} has {shown}; {best} has {metric.estimates[best].value:.4f}.")
    if tied:
        sentences.append(f"The difference from {_join(tied)} is noise on these data.")
    if facts.trained_pooling is None:
        sentences.append("The model does not say which pooling type it was trained for.")
    elif facts.trained_pooling is chosen:
        sentences.append("The GGUF says the model was trained for it.")
    else:
        sentences.append(f"The GGUF says the model was trained for {facts.trained_pooling}.")
    return sentences


def _ahead(difference: Interval) -> str:
    return f"{difference.value:.4f} ({difference.low:.4f} to {difference.high:.4f})"


def _join(pooling_types: Sequence[PoolingType]) -> str:
    return " and ".join(filter(None, [", ".join(pooling_types[:-1]), pooling_types[-1]]))


def left_out(facts: SourceFacts, pooling_types: Sequence[PoolingType]) -> dict[PoolingType, str]:
    """Return why each other pooling type was not compared."""
    reasons = {
        PoolingType.NONE: "it gives a vector for each token; all others are made from these",
        PoolingType.RANK: "it scores a pair with the model's classification head and gives no vector; use it to rerank",
    }
    return {
        pooling: facts.refused.get(
            pooling, reasons.get(pooling, "it was not asked for, or the server does not answer it")
        )
        for pooling in PoolingType
        if pooling not in pooling_types
    }


def known_faults(facts: SourceFacts, recommendation: Recommendation | None) -> list[str]:
    """Return a warning for each choice that is known to be wrong for this model."""
    warnings = []
    if facts.causal and PoolingType.CLS in facts.refused:
        warnings.append(f"Do not use cls: {facts.refused[PoolingType.CLS]}.")
    if PoolingType.RANK in facts.refused:
        warnings.append(f"Do not use rank: {facts.refused[PoolingType.RANK]}.")
    if facts.ends_with_token is False:
        warnings.append(
            "Do not use last as things are: no end token closes a text, so last reads whatever word the text ends with. "
            "If the model was trained with an end token, set append_eos (here: --append-eos) and compare again."
        )
    trained = facts.trained_pooling
    if trained is PoolingType.RANK:
        warnings.append(
            "The model was trained to score pairs (rank). Its hidden states were not trained to be compared by cosine."
        )
    elif (
        recommendation is not None
        and trained in (PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST)
        and trained not in (recommendation.pooling, *recommendation.tied)
    ):
        warnings.append(
            f"The model was trained for {trained}, but {recommendation.pooling} measures better here. Before you rely on "
            "that, check that prompts and special tokens are those of the model's card."
        )
    return warnings

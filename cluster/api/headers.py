"""Response headers that every dialect shares."""

from __future__ import annotations

from cluster.calls import ClassifyAnswer, EmbedAnswer, RerankAnswer
from cluster.types import PoolingType


def answer_headers(answer: EmbedAnswer) -> dict[str, str]:
    """Name what made the vectors, and where the time went (milliseconds)."""
    headers = {
        "x-poolhouse-model": answer.model,
        "x-poolhouse-pooling": answer.pooling.value,
        "x-poolhouse-fingerprint": answer.fingerprint,
        "x-poolhouse-tokens": str(sum(answer.tokens)),
    }
    cut = sum(answer.cut_tokens)
    if cut:
        headers["x-poolhouse-truncated-tokens"] = str(cut)
    return {**headers, **_build_headers(answer.builds), **_timing_headers(answer.timings_s)}


def score_headers(answer: RerankAnswer | ClassifyAnswer) -> dict[str, str]:
    """Name what made the scores and what they are, and where the time went."""
    headers = {
        "x-poolhouse-model": answer.model,
        "x-poolhouse-score-type": answer.score_type.value,
        "x-poolhouse-fingerprint": answer.fingerprint,
    }
    if isinstance(answer, RerankAnswer):
        headers["x-poolhouse-strategy"] = answer.strategy.value
        headers["x-poolhouse-pooling"] = answer.pooling.value
        headers["x-poolhouse-tokens"] = str(answer.total_tokens)
    else:
        headers["x-poolhouse-pooling"] = PoolingType.RANK.value
        headers["x-poolhouse-tokens"] = str(sum(answer.tokens))
    cut = sum(answer.cut_tokens)
    if cut:
        headers["x-poolhouse-truncated-tokens"] = str(cut)
    return {**headers, **_build_headers(answer.builds), **_timing_headers(answer.timings_s)}


def _build_headers(builds: tuple[str, ...]) -> dict[str, str]:
    return {"x-poolhouse-build": ", ".join(builds)} if builds else {}


def _timing_headers(timings_s: dict[str, float]) -> dict[str, str]:
    hundredths = {part: round(seconds * 1e5) for part, seconds in timings_s.items()}
    if "total" in hundredths:
        # Rounded each by itself, the parts could come to more than their sum.
        hundredths["total"] = max(hundredths["total"], sum(hundredths.values()) - hundredths["total"])
    return {f"x-{part}-time-ms": f"{count / 100:.2f}" for part, count in hundredths.items()}


def ignored_fields_header(names: list[str]) -> dict[str, str]:
    """Name the body's fields that mean nothing here, in ASCII, at most 16 of them and 60 characters of each."""
    if not names:
        return {}
    shown = ",".join(name[:60].encode("ascii", "backslashreplace").decode()[:60] for name in names[:16])
    return {"x-poolhouse-ignored-fields": "".join(char if char.isprintable() else "?" for char in shown)}

"""Response headers that every dialect shares."""

from __future__ import annotations

from cluster.calls import EmbedAnswer


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
    for stage, seconds in answer.timings_s.items():
        headers[f"x-{stage}-time-ms"] = f"{seconds * 1e3:.2f}"
    return headers


def ignored_fields_header(names: list[str]) -> dict[str, str]:
    """Name the body's fields that mean nothing here, in ASCII, at most 16 of them and 60 characters of each."""
    if not names:
        return {}
    shown = ",".join(name[:60].encode("ascii", "backslashreplace").decode()[:60] for name in names[:16])
    return {"x-poolhouse-ignored-fields": "".join(char if char.isprintable() else "?" for char in shown)}

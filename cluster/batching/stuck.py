"""How long a call of the engine may take before it counts as stuck."""

from __future__ import annotations

_STUCK_S = 30.0
_STUCK_FACTOR = 10.0
_SLOWEST_TOKENS_PER_S = 20.0


def stuck_after_s(tokens: int, tokens_per_s: float | None) -> float:
    """Return so long on top of so many times what it should take: a machine that swaps is slow, not stuck.

    Args:
        tokens_per_s: the engine's speed; None where it was not measured.
    """
    return _STUCK_S + _STUCK_FACTOR * tokens / max(tokens_per_s or 0.0, _SLOWEST_TOKENS_PER_S)

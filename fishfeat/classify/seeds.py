"""What a seed may be."""

from __future__ import annotations

import operator

from fishfeat.options import MAX_SEED


def is_seed(seed: object) -> bool:
    """Whether it is a whole number from 0 to `MAX_SEED`."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        return False
    return 0 <= operator.index(seed) <= MAX_SEED


def explain_seed(seed: object) -> str:
    """What a seed must be."""
    return f"seed must be a whole number from 0 to {MAX_SEED:,}; got {seed!r}."

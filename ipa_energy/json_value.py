"""Numbers as JSON can hold them: it has no NaN, and what is not known is ``null`` there."""

from __future__ import annotations

import math


def or_none(value: float) -> float | None:
    """The number; None if it is NaN or infinite."""
    return value if math.isfinite(value) else None

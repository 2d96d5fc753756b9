"""Seeds of tests on random cases: a few every day, more in a long run."""

from __future__ import annotations

import os

LONG_RUN = "IPA_ENERGY_SEEDS"
"""Environment variable: how many seeds each such test has in a long run, e.g. 500."""


def seeds(few: int) -> range:
    """The first ``few`` seeds; as many as :data:`LONG_RUN` says if that is more."""
    return range(max(few, int(os.environ.get(LONG_RUN, "0"))))

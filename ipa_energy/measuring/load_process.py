"""One core of known load: works for a share of the time until its parent is gone.

``integers`` is a loop of the interpreter; ``matrices`` are products of float32 matrices, which is
what inference does. They cost different watts at the same utilisation, and a power model that knows
utilisation alone must live with both: so a calibration has both. Run as a program by its path.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

PERIOD_S = 0.1
"""Of the duty cycle: long against the scheduler's slices, short against any window."""

MATRIX_ROWS = 256


def main() -> None:
    """Arguments: kind of work, share of the time to be busy (0..1)."""
    work, duty = WORK[sys.argv[1]](), float(sys.argv[2])
    parent = os.getppid()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    time.sleep(random.random() * PERIOD_S)  # so that many do not beat in step
    while os.getppid() == parent:
        start_s = time.perf_counter()
        while time.perf_counter() - start_s < duty * PERIOD_S:
            work()
        left_s = start_s + PERIOD_S - time.perf_counter()
        if duty < 1 and left_s > 0:
            time.sleep(left_s)


def _integers() -> Callable[[], None]:
    def work() -> None:
        total = 0
        for number in range(1000):
            total += number * number

    return work


def _matrices() -> Callable[[], None]:
    import numpy as np

    left = np.random.default_rng(0).random((MATRIX_ROWS, MATRIX_ROWS), dtype=np.float32)
    product = np.empty_like(left)

    def work() -> None:
        np.matmul(left, left, out=product)

    return work


WORK: dict[str, Callable[[], Callable[[], None]]] = {"integers": _integers, "matrices": _matrices}

if __name__ == "__main__":
    main()

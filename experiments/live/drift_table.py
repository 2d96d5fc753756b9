"""How fast the drift of joules is found, and how often one that is not there.

::

    python experiments/live/drift_table.py [--runs N] > experiments/live/results/drift_table.txt

Windows of 10 s with a scatter of σ = 8 %, independent or autocorrelated, normal or with the heavy
tails of Student's t with 4 degrees of freedom; σ and ρ are not known to the chart. A change is put
on the first window or after 500 clean ones; the delay counts windows up to the alarm.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np

from ipa_energy.adaptation.drift import Cusum
from ipa_energy.arrays import Floats

SIGMA = 0.08
WINDOWS_5_HOURS = 1800
GIVEN_UP = 600


def scatter(rng: np.random.Generator, count: int, rho: float, *, heavy: bool = False) -> Floats:
    """Values of r without any change."""
    if heavy:
        return rng.standard_t(4, count) * SIGMA / math.sqrt(2)
    steps = rng.normal(0, SIGMA * math.sqrt(1 - rho**2), count)
    values = np.empty(count)
    last = rng.normal(0, SIGMA)
    for index, step in enumerate(steps):
        last = rho * last + step
        values[index] = last
    return values


def alarms(values: Floats) -> Iterator[int]:
    """Windows, from 1, at which a change is found."""
    chart = Cusum(SIGMA)
    for index, r in enumerate(values, start=1):
        if chart.add(float(r)) is not None:
            yield index


def delay(rng: np.random.Generator, change: float, before: int, rho: float) -> float:
    """Windows from a change to its alarm; infinity if there was none in :data:`GIVEN_UP`."""
    values = scatter(rng, before + GIVEN_UP, rho)
    values[before:] += math.log(change)
    found = next((at for at in alarms(values) if at > before), math.inf)
    return found - before


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100, metavar="N", help="runs of each cell")
    runs = parser.parse_args().runs
    print(f"False alarms in 5 hours of 10 s windows, mean of {runs} runs")
    for name, rho, heavy in (
        ("independent, normal", 0.0, False),
        ("independent, t4 tails", 0.0, True),
        ("rho 0.3", 0.3, False),
        ("rho 0.5", 0.5, False),
    ):
        found = sum(
            len(list(alarms(scatter(np.random.default_rng(s), WINDOWS_5_HOURS, rho, heavy=heavy))))
            for s in range(runs)
        )
        print(f"  {name:22} {found / runs:5.2f}")
    print("\nWindows until a change is found, median (90 %), from the first window | after 500")
    for change in (1.05, 1.1, 1.2, 1.5, 0.8):
        cells = []
        for rho in (0.0, 0.5):
            for before in (0, 500):
                rngs = map(np.random.default_rng, range(runs))
                found_at = [delay(rng, change, before, rho) for rng in rngs]
                median, late = np.quantile(found_at, [0.5, 0.9], method="higher")
                cells.append(f"{median:4.0f} ({late:4.0f})")
        print(
            f"  x{change:<5g} independent {cells[0]} | {cells[1]}   rho 0.5 {cells[2]} | {cells[3]}"
        )


if __name__ == "__main__":
    main()

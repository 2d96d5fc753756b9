"""Fit the shape of made-up intensities to five real weeks, and print it.

    python experiments/carbon/fit_synthetic.py

The medians stand in ipa_energy/carbon/intensity.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ipa_energy.carbon.published import read_intensity

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "carbon"
LOCAL_HOURS = {"GB": 1.0, "NL": 2.0, "US-CAL-CISO": -7.0, "US-TEX-ERCO": -5.0, "AU-SA": 9.5}
NAMES = ("cos 24 h", "sin 24 h", "cos 12 h", "sin 12 h", "weekend", "persistence", "noise")


def main() -> None:
    """Print a row a zone, and the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    print("zone        ", "  ".join(f"{name:>11}" for name in NAMES))
    rows = []
    for zone, local in LOCAL_HOURS.items():
        series = read_intensity(FOLDER / f"electricitymaps-{zone}-2023-week16.csv")
        rows.append(fit(np.asarray(series.g_per_kwh / series.g_per_kwh.mean()), local))
        print(f"{zone:12}", "  ".join(f"{value:11.3f}" for value in rows[-1]))
    print(f"{'median':12}", "  ".join(f"{value:11.3f}" for value in np.median(rows, axis=0)))


def fit(values: np.ndarray[tuple[int], np.dtype[np.float64]], local: float) -> list[float]:
    """The numbers of :data:`NAMES` for a week of hours that begins on a Monday in UTC."""
    hours = np.arange(len(values)) + local
    weekend = (hours // 24 % 7 >= 5).astype(float)
    waves = [wave(2 * np.pi * k * hours / 24) for k in (1, 2) for wave in (np.cos, np.sin)]
    columns = np.stack([np.ones(len(values)), *waves, weekend], axis=1)
    found = np.linalg.lstsq(columns, values, rcond=None)[0]
    rest = values - columns @ found
    persistence = float((rest[1:] * rest[:-1]).sum() / (rest * rest).sum())
    return [*found[1:].tolist(), persistence, float(rest.std())]


if __name__ == "__main__":
    main()

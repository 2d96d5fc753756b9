"""Train the LSTM load predictor and say how good it is against the simple ones.

    python experiments/predictors/train_lstm_predictor.py --out ipa_energy/adaptation/lstm.npz
    python experiments/predictors/train_lstm_predictor.py --trace TRACE.csv --damping 8 \
        --evaluate ipa_energy/adaptation/lstm.npz

Trains on our own generators only (:mod:`ipa_energy.workloads.shapes`), at many scales and noise
levels, plus a wandering level and constant loads, so that the network learns how loads move and
not one trace. Needs torch (``pip install ipa-energy[train]``); evaluating does not.

Loss. Too low a forecast drops requests, too high a one only wastes energy until the next interval,
so the loss is the pinball loss at 0.8: a request per second too few costs four times one too many,
and the network learns the 80 % quantile of the coming maximum. It is taken relative to the largest
load of the window, so that every scale counts alike, and unlike a squared error it is not ruled by
the onset of bursts, which nobody can foresee.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fitting import drawn_loads, trained

from ipa_energy.adaptation import lstm
from ipa_energy.adaptation.forecast import STEP_S, pinball_rps, smape
from ipa_energy.adaptation.predictor import (
    forecast_avg,
    forecast_max,
    forecast_reactive,
    window_maxima,
)
from ipa_energy.errors import IpaEnergyError
from ipa_energy.workloads import SHAPES, csv_workload, named_workload

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

QUANTILE = 0.8
FIRST_TRAINING_SEED = 1000
HELD_OUT_SEEDS = range(20)
BATCH = 512
TRAINED_ON = {name: SHAPES[name] for name in ("bursty", "steady-low", "steady-high", "fluctuating")}
"""The shapes of minutes."""
BASELINES = {"reactive": forecast_reactive, "max": forecast_max, "avg": forecast_avg}


@dataclass(frozen=True, slots=True)
class Windows:
    """What a decision sees and what comes.

    Attributes:
        maxima: (windows, 12) ten-second maxima, requests per second.
        target_rps: (windows,) the largest load of the 20 s that follow.
    """

    maxima: Floats
    target_rps: Floats

    def __len__(self) -> int:
        return len(self.target_rps)


def windows_of(counts: Ints, offset_s: int = 0) -> Windows:
    """Every window of a trace that begins a multiple of 10 s after ``offset_s``."""
    maxima = window_maxima(counts[offset_s : len(counts) - (len(counts) - offset_s) % STEP_S])
    ahead = lstm.POINT_HORIZON_S // STEP_S
    seen = np.lib.stride_tricks.sliding_window_view(maxima[:-ahead], lstm.STEPS)
    coming = np.lib.stride_tricks.sliding_window_view(maxima[lstm.STEPS :], ahead)
    return Windows(np.array(seen), coming.max(axis=1))


def joined(parts: list[Windows]) -> Windows:
    """All windows in which something arrives or has arrived."""
    maxima = np.concatenate([part.maxima for part in parts])
    target_rps = np.concatenate([part.target_rps for part in parts])
    kept = (maxima.max(axis=1) > 0) | (target_rps > 0)
    return Windows(maxima[kept], target_rps[kept])


def training_windows(seeds: range) -> Windows:
    """Every shape at a random scale and noise level for each seed, and one constant load."""
    loads = drawn_loads(seeds, TRAINED_ON.values(), lstm.POINT_HORIZON_S + 240)
    return joined([windows_of(counts, offset_s) for counts, offset_s in loads])


def with_short_histories(windows: Windows, random: np.random.Generator) -> Windows:
    """Windows of which one in ten begins later, its oldest maximum repeated as at a run's start."""
    maxima = windows.maxima.copy()
    for row in np.flatnonzero(random.random(len(maxima)) < 0.1):
        first = random.integers(1, lstm.STEPS)
        maxima[row, :first] = maxima[row, first]
    return replace(windows, maxima=maxima)


def fit(windows: Windows, *, epochs: int, seed: int) -> lstm.Weights:
    """Fit the network to the windows; the same seed gives the same weights.

    Raises:
        UnavailableError: torch is not installed.
    """

    def examples(random: np.random.Generator) -> tuple[Floats, Floats]:
        shown = with_short_histories(windows, random)
        inputs, scale = lstm.features(shown.maxima)
        return inputs, shown.target_rps / scale

    def loss_of(seen: Any, came: Any, change: Any) -> Any:
        missing = came - (seen[:, -1, 0] + change.squeeze(1))
        return (QUANTILE * missing).maximum((QUANTILE - 1) * missing).mean()

    arrays, metadata = trained(
        examples, loss_of, inputs=lstm.INPUTS, outputs=1, batch=BATCH, epochs=epochs, seed=seed
    )
    one = {name: arrays[name][0] for name in ("head_weight", "head_bias")}
    return lstm.Weights(**{**arrays, **one}, metadata=metadata)


def errors_of(forecast_rps: Floats, target_rps: Floats) -> dict[str, float]:
    """How far rounded forecasts are from what came.

    Returns:
        ``mae_rps``, ``rmse_rps``, ``smape`` (0..2), ``under_share`` (of windows forecast too low),
        ``shortfall_rps`` and ``excess_rps`` (means over all windows), ``pinball_rps`` (the loss).
    """
    missing = target_rps - np.round(forecast_rps)
    return {
        "mae_rps": float(np.abs(missing).mean()),
        "rmse_rps": float(np.sqrt((missing**2).mean())),
        "smape": smape(target_rps, np.round(forecast_rps)),
        "under_share": float((missing > 0).mean()),
        "shortfall_rps": float(np.maximum(0, missing).mean()),
        "excess_rps": float(np.maximum(0, -missing).mean()),
        "pinball_rps": pinball_rps(target_rps, np.round(forecast_rps)[:, None], [QUANTILE]),
    }


def evaluation(windows: Windows, weights: lstm.Weights) -> dict[str, dict[str, float]]:
    """Predictor → its errors on the windows."""
    results = {"lstm": errors_of(lstm.forecast(windows.maxima, weights), windows.target_rps)}
    for name, forecast in BASELINES.items():
        forecast_rps = np.array([forecast(maxima) for maxima in windows.maxima])
        results[name] = errors_of(forecast_rps, windows.target_rps)
    return results


def held_out(seeds: range = HELD_OUT_SEEDS) -> dict[str, Windows]:
    """Shape → windows of the seeds that training never sees."""
    return {
        name: joined([windows_of(named_workload(name, seed=seed).counts) for seed in seeds])
        for name in TRAINED_ON
    }


def rounded(results: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The results to four digits, for the weight file."""
    return {
        predictor: {metric: round(value, 4) for metric, value in errors.items()}
        for predictor, errors in results.items()
    }


def print_table(name: str, results: dict[str, dict[str, float]]) -> None:
    """One line a predictor."""
    metrics = list(next(iter(results.values())))
    print(f"\n{name:<28}" + "".join(f"{metric:>15}" for metric in metrics))
    for predictor, errors in results.items():
        print(f"  {predictor:<26}" + "".join(f"{errors[metric]:>15.3f}" for metric in metrics))


def train_and_save(out: Path, *, epochs: int, train_seeds: int, seed: int) -> lstm.Weights:
    """Train, evaluate on the held-out seeds, write the weight file."""
    start_s = time.perf_counter()
    seeds = range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + train_seeds)
    windows = training_windows(seeds)
    weights = fit(windows, epochs=epochs, seed=seed)
    metadata = weights.metadata | {
        "trained_on": f"{len(windows)} windows: {', '.join(TRAINED_ON)}, wandering, constant; "
        f"seeds {seeds.start}..{seeds.stop - 1}, scaled 0.2 to 30 times",
        "loss": f"pinball {QUANTILE}, relative to the largest load of the window",
        "held_out_seeds": f"{HELD_OUT_SEEDS.start}..{HELD_OUT_SEEDS.stop - 1}",
        "held_out": {name: rounded(evaluation(part, weights)) for name, part in held_out().items()},
    }
    weights = replace(weights, metadata=metadata)
    lstm.save_weights(weights, out)
    print(f"{out}: {out.stat().st_size} bytes, {time.perf_counter() - start_s:.0f} s")
    return weights


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="train, and write the weights here")
    parser.add_argument("--evaluate", type=Path, help="weight file to evaluate without training")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--train-seeds", type=int, default=300, help="traces of each shape")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batches")
    parser.add_argument("--trace", type=Path, action="append", default=[], help="CSV, evaluated")
    parser.add_argument("--damping", type=int, help="damping factor of the CSV traces")
    options = parser.parse_args(arguments)
    if (options.out is None) == (options.evaluate is None):
        parser.error("give either --out or --evaluate")
    try:
        if options.out is not None:
            weights = train_and_save(
                options.out,
                epochs=options.epochs,
                train_seeds=options.train_seeds,
                seed=options.seed,
            )
        else:
            weights = lstm.load_weights(options.evaluate)
        parts = held_out()
        for trace in options.trace:
            parts[trace.stem] = windows_of(csv_workload(trace, options.damping).counts)
        for name, windows in parts.items():
            print_table(name, evaluation(windows, weights))
    except IpaEnergyError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())

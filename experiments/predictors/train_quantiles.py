"""Train the network that forecasts quantiles of the coming minute's load.

    python experiments/predictors/train_quantiles.py --ipa-home DIR \
        --out ipa_energy/adaptation/lstm_quantiles.npz

Trains on the first 14 days of IPA's trace, as IPA's own network does, divided by 1, 2, 4, 8 and 16,
and on our generators at many scales (those of ``train_lstm_predictor.py``): the trace teaches how
loads move, the generators keep the network from knowing one trace only. Windows in which the trace
has a gap are left out. What :file:`result.md` reports lies behind second 1,296,000, and in seeds
that training never sees.

Loss: the pinball loss of every step and level, relative to the largest load of the window. The same
seed gives the same weights. Needs torch (``pip install ipa-energy[train]``) and a checkout of IPA.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fitting import drawn_loads, trained

from ipa_energy.adaptation import lstm
from ipa_energy.adaptation.forecast import LEVELS, STEP_S
from ipa_energy.arrays import Counts, Floats, Ints
from ipa_energy.config.sections import TwitterWindow
from ipa_energy.errors import IpaEnergyError
from ipa_energy.workloads import SHAPES, twitter_workload

TRAINING_DAYS = 14
DAMPINGS = {1: 25_000, 2: 25_000, 4: 25_000, 8: 60_000, 16: 25_000}
"""Divisor of the trace → windows of it."""
BATCH = 1024

Windows = tuple[Floats, Floats]
"""(windows, steps seen and to come) maxima, and means, of ten seconds each."""


def windows_in(counts: Counts, offset_s: int = 0, usable: Any = None) -> Windows:
    """Every window that begins a multiple of ten seconds after ``offset_s`` and has some load.

    Args:
        counts: requests of each second.
        offset_s: where the first begins.
        usable: (seconds,) False where the trace has a gap; None: it has none.
    """
    whole = (len(counts) - offset_s) // STEP_S * STEP_S
    seconds = counts[offset_s : offset_s + whole].reshape(-1, STEP_S)
    length = lstm.STEPS + lstm.STEPS_AHEAD
    view = np.lib.stride_tricks.sliding_window_view
    maxima = view(seconds.max(axis=1).astype(np.float64), length)
    means = view(seconds.mean(axis=1), length)
    kept = maxima[:, : lstm.STEPS].max(axis=1) > 0
    if usable is not None:
        steps = usable[offset_s : offset_s + whole].reshape(-1, STEP_S).all(axis=1)
        kept &= view(steps, length).all(axis=1)
    return maxima[kept], means[kept]


def of_trace(trace: Counts, random: np.random.Generator) -> list[Windows]:
    """Windows of IPA's trace, drawn at random at each damping."""
    whole = trace[: len(trace) // STEP_S * STEP_S]
    usable = np.repeat(whole.reshape(-1, STEP_S).max(axis=1) > 0, STEP_S)
    parts = []
    for damping, wanted in DAMPINGS.items():
        maxima, means = windows_in(whole // damping, int(random.integers(STEP_S)), usable)
        rows = random.choice(len(maxima), min(wanted, len(maxima)), replace=False)
        parts.append((maxima[rows], means[rows]))
    return parts


def of_generators(seeds: range) -> list[Windows]:
    """Windows of every shape at a random scale and noise level, and of a constant load."""
    length_s = STEP_S * (lstm.STEPS + lstm.STEPS_AHEAD)
    loads = drawn_loads(seeds, SHAPES.values(), length_s)
    return [windows_in(counts, offset_s) for counts, offset_s in loads]


def with_short_histories(maxima: Floats, random: np.random.Generator) -> Ints:
    """Which window each step shows: one in ten begins later, its oldest step repeated."""
    shown = np.tile(np.arange(lstm.STEPS), (len(maxima), 1))
    for row in np.flatnonzero(random.random(len(maxima)) < 0.1):
        first = random.integers(1, lstm.STEPS)
        shown[row, :first] = first
    return shown


def fit(windows: Windows, *, epochs: int, seed: int) -> lstm.Weights:
    """Fit the network to the windows; the same seed gives the same weights.

    Raises:
        UnavailableError: torch is not installed.
    """
    maxima, means = windows
    coming = np.stack([maxima[:, lstm.STEPS :], means[:, lstm.STEPS :]], axis=2)

    def examples(random: np.random.Generator) -> tuple[Floats, Floats]:
        shown = with_short_histories(maxima, random)
        seen = [np.take_along_axis(each[:, : lstm.STEPS], shown, 1) for each in windows]
        inputs, scale = lstm.quantile_features(*seen)
        return inputs, coming / scale.reshape(-1, 1, 1)

    def loss_of(seen: Any, came: Any, output: Any) -> Any:
        levels = came.new_tensor(LEVELS)
        change = output.reshape(-1, lstm.STEPS_AHEAD, 2, len(LEVELS))
        missing = came[..., None] - (seen[:, -1, :2].reshape(-1, 1, 2, 1) + change)
        return (levels * missing).maximum((levels - 1) * missing).mean()

    arrays, metadata = trained(
        examples,
        loss_of,
        inputs=lstm.QUANTILE_INPUTS,
        outputs=lstm.QUANTILE_OUTPUTS,
        batch=BATCH,
        epochs=epochs,
        seed=seed,
    )
    return lstm.Weights(**arrays, metadata=metadata)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the weights are written here")
    parser.add_argument("--ipa-home", type=Path, help="checkout of IPA; without it no trace")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--train-seeds", type=int, default=300, help="traces of each shape")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batches")
    options = parser.parse_args(arguments)
    start_s = time.perf_counter()
    seeds = range(1000, 1000 + options.train_seeds)
    parts = of_generators(seeds)
    trained_on = f"{', '.join(SHAPES)}, wandering, constant, seeds {seeds.start}..{seeds.stop - 1}"
    try:
        if options.ipa_home is not None:
            end = TRAINING_DAYS * 86_400
            window = TwitterWindow(start=0, end=end, damping_factor=1)
            trace = twitter_workload(options.ipa_home, [window]).counts
            parts += of_trace(trace, np.random.default_rng(options.seed))
            trained_on += f"; IPA's trace, seconds 0..{end}, ÷ {', '.join(map(str, DAMPINGS))}"
        joined = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
        weights = fit((joined[0], joined[1]), epochs=options.epochs, seed=options.seed)
    except IpaEnergyError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    metadata = weights.metadata | {
        "trained_on": f"{len(joined[0])} windows: {trained_on}",
        "loss": "pinball, all levels, relative to the largest load of the window",
    }
    lstm.save_weights(replace(weights, metadata=metadata), options.out)
    print(
        f"{options.out}: {options.out.stat().st_size} bytes, {time.perf_counter() - start_s:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

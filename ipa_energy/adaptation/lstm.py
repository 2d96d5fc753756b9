r"""The LSTM load forecast, in NumPy: IPA's YAMLs all ask for it, so it must not need torch.

The network is IPA's in size, 25 units over 12 ten-second maxima (2 minutes), and forecasts the
maximum of the next 20 seconds. Ours differs in what it sees, so that one weight file serves any
load. With x_1 … x_12 the maxima and m the largest of them::

    input of step k     ( x_k / m,  log(1 + m) / 5 )
    i, f, o             σ(W_i v + …), σ(W_f v + …), σ(W_o v + …)      gates, torch.nn.LSTM's order
    g                   tanh(W_g v + …)                               i, f, g, o
    c ← f·c + i·g       h ← o·tanh(c)
    forecast            m · max(0, x_12 / m + w·h_12 + b)

The first input makes the forecast scale with the load, the second tells how noisy a count of that
size is (a Poisson count of 5 strays further, relatively, than one of 500). The output corrects the
last maximum, so an untrained network is the reactive predictor.

A second network of the same size says how uncertain the load is (:func:`quantiles`). It sees the
mean of each ten seconds too, and of each of the coming six ten-second steps it forecasts the
largest second and the mean, each at the levels of :data:`~.forecast.LEVELS`::

    input of step k     ( x_k / m,  mean_k / m,  log(1 + m) / 5 )
    quantile            m · max(0, (x_12 or mean_12) / m + w·h_12 + b)      sorted by level

Weights: ``lstm.npz`` beside this file, made by ``experiments/predictors/train_lstm_predictor.py``
on our own generators, and ``lstm_quantiles.npz`` by ``train_quantiles.py`` there on them and on the
first 14 days of IPA's trace; their ``metadata`` says how and with what result.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.adaptation.forecast import HORIZON_S, LEVELS, STEP_S, Forecast, windows_of
from ipa_energy.arrays import Counts, Floats
from ipa_energy.errors import ConfigError, in_words

UNITS = 25
STEPS = 12
"""Maxima the network sees: 2 minutes."""
POINT_HORIZON_S = 20
"""Seconds ahead whose maximum the first network forecasts."""
INPUTS = 2
WEIGHTS_PATH = Path(__file__).with_name("lstm.npz")

STEPS_AHEAD = HORIZON_S // STEP_S
"""Steps whose quantiles the second network forecasts."""
QUANTILE_INPUTS = 3
QUANTILE_OUTPUTS = STEPS_AHEAD * 2 * len(LEVELS)
QUANTILES_PATH = Path(__file__).with_name("lstm_quantiles.npz")


def _shapes(inputs: int, outputs: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {
        "weight_ih": (4 * UNITS, inputs),
        "weight_hh": (4 * UNITS, UNITS),
        "bias_ih": (4 * UNITS,),
        "bias_hh": (4 * UNITS,),
        "head_weight": (*outputs, UNITS),
        "head_bias": outputs,
    }


_SHAPES = _shapes(INPUTS, ())
_QUANTILE_SHAPES = _shapes(QUANTILE_INPUTS, (QUANTILE_OUTPUTS,))


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Parameters of the network; names and gate order (i, f, g, o) are torch.nn.LSTM's.

    Attributes:
        weight_ih: (4 · units, inputs).
        weight_hh: (4 · units, units).
        bias_ih, bias_hh: (4 · units,).
        head_weight: (units,) of the linear head; (outputs, units) of several.
        head_bias: scalar of the linear head; (outputs,) of several.
        metadata: how they were trained, and the held-out errors.
    """

    weight_ih: Floats
    weight_hh: Floats
    bias_ih: Floats
    bias_hh: Floats
    head_weight: Floats
    head_bias: Floats
    metadata: dict[str, Any]


@lru_cache(maxsize=4)
def load_weights(path: Path = WEIGHTS_PATH, *, has_quantiles: bool = False) -> Weights:
    """Read a weight file; kept in memory after the first call.

    Args:
        path: the file.
        has_quantiles: True for the second network.

    Raises:
        ConfigError: the file is missing, damaged, or of another network.
    """
    shapes = _QUANTILE_SHAPES if has_quantiles else _SHAPES
    script = "train_quantiles.py" if has_quantiles else "train_lstm_predictor.py"
    fix = f"make it again with experiments/predictors/{script}"
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], dtype=np.float64) for name in shapes}
            metadata = json.loads(str(file["metadata"]))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"no LSTM weights: {in_words(error)}", where=path, fix=fix) from error
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise ConfigError(
                f"LSTM weight {name} has shape {arrays[name].shape} or is not finite",
                where=path,
                allowed=f"finite numbers of shape {shape}",
                fix=fix,
            )
    return Weights(**arrays, metadata=metadata)


def save_weights(weights: Weights, path: Path) -> None:
    """Write a weight file (float32); the same weights give the same arrays."""
    arrays = {name: np.asarray(getattr(weights, name), dtype=np.float32) for name in _SHAPES}
    np.savez_compressed(path, metadata=np.array(json.dumps(weights.metadata)), **arrays)  # type: ignore[arg-type]


def features(maxima: Floats) -> tuple[Floats, Floats]:
    """What the network sees of windows of maxima, (windows, steps) in requests per second.

    Returns:
        The inputs, (windows, steps, :data:`INPUTS`), and the scale m of each window, at least 1.
    """
    scale = np.maximum(maxima.max(axis=1), 1.0)
    level = np.log1p(scale) / 5
    shape = maxima / scale[:, None]
    return np.stack([shape, np.broadcast_to(level[:, None], shape.shape)], axis=2), scale


def last_hidden_state(inputs: Floats, weights: Weights) -> Floats:
    """Run the LSTM: (windows, steps, inputs) to the hidden state after the last, (windows, 25)."""
    hidden = np.zeros((len(inputs), UNITS))
    cell = np.zeros((len(inputs), UNITS))
    bias = weights.bias_ih + weights.bias_hh
    for step in range(inputs.shape[1]):
        gates = inputs[:, step] @ weights.weight_ih.T + hidden @ weights.weight_hh.T + bias
        enter, forget, candidate, leave = np.split(gates, 4, axis=1)
        cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(candidate)
        hidden = _sigmoid(leave) * np.tanh(cell)
    return hidden


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # never overflows, unlike 1 / (1 + exp(−x))


def forecast(maxima: Floats, weights: Weights) -> Floats:
    """Forecast the largest load of the next :data:`POINT_HORIZON_S` seconds.

    Args:
        maxima: (windows, :data:`STEPS`) ten-second maxima, oldest first, requests per second.
        weights: of the network.

    Returns:
        (windows,) requests per second, at least 0.

    Raises:
        ValueError: ``maxima`` has another shape.
    """
    if maxima.ndim != 2 or maxima.shape[1] != STEPS:
        raise ValueError(f"maxima have shape {maxima.shape}, expected (windows, {STEPS})")
    inputs, scale = features(maxima)
    change = last_hidden_state(inputs, weights) @ weights.head_weight + weights.head_bias
    forecasts: Floats = scale * np.maximum(0.0, inputs[:, -1, 0] + change)
    return forecasts


def padded(maxima: Floats) -> Floats:
    """The last :data:`STEPS` maxima; a shorter history begins with its oldest one repeated."""
    missing = max(0, STEPS - len(maxima))
    return np.concatenate([np.repeat(maxima[:1], missing), maxima[-STEPS:]])


def quantile_features(maxima: Floats, means: Floats) -> tuple[Floats, Floats]:
    """What the second network sees; see :func:`features`."""
    inputs, scale = features(maxima)
    return np.insert(inputs, 1, means / scale[:, None], axis=2), scale


def quantiles(maxima: Floats, means: Floats, weights: Weights) -> Floats:
    """Quantiles of the coming steps' loads.

    Args:
        maxima: (windows, :data:`STEPS`) ten-second maxima, oldest first, requests per second.
        means: the means of the same windows.
        weights: of the second network.

    Returns:
        (windows, :data:`STEPS_AHEAD`, 2, levels) requests per second, at least 0: of each step the
        largest second and the mean.
    """
    inputs, scale = quantile_features(maxima, means)
    change = last_hidden_state(inputs, weights) @ weights.head_weight.T + weights.head_bias
    shape = (len(maxima), STEPS_AHEAD, 2, len(LEVELS))
    last = inputs[:, -1, :2].reshape(-1, 1, 2, 1)
    relative = np.sort(np.maximum(0.0, last + change.reshape(shape)), axis=3)
    found: Floats = scale.reshape(-1, 1, 1, 1) * relative
    return found


def forecast_quantiles(counts: Counts, horizon_s: int = HORIZON_S) -> Forecast:
    """The second network's forecast from the last two minutes; its last step lasts beyond 60 s.

    Args:
        counts: requests of each second up to now, at least one.
        horizon_s: how far to look ahead.
    """
    maxima, means = windows_of(counts[-STEPS * STEP_S :])
    weights = load_weights(QUANTILES_PATH, has_quantiles=True)
    found = quantiles(padded(maxima)[None], padded(means)[None], weights)[0]
    steps = np.minimum(np.arange(-(-horizon_s // STEP_S)), STEPS_AHEAD - 1)
    return Forecast(found[steps, 0], found[steps, 1])

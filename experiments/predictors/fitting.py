"""What the networks of :mod:`ipa_energy.adaptation.lstm` learn from, and how, each its own loss."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ipa_energy.adaptation import lstm
from ipa_energy.adaptation.forecast import STEP_S
from ipa_energy.arrays import Counts, Floats
from ipa_energy.errors import UnavailableError
from ipa_energy.workloads.shapes import DAMPING_FACTOR, Shape, drawn_counts, rate_of

LEARNING_RATE = 8e-3
TRACE_S = 1200

WANDERING = Shape(
    TRACE_S, lambda random: [(0, random.uniform(5, 30))], (0, 10**9), sway=0.5, sway_s=240
)
"""A level without any rest, for loads that are none of the others."""

Examples = Callable[[np.random.Generator], tuple[Floats, Floats]]
"""An epoch's features (windows, steps, inputs), and what came, both relative to their scale."""

Loss = Callable[[Any, Any, Any], Any]
"""(features, what came, the head's output) of a batch as tensors → a number."""


def drawn_loads(
    seeds: range, shapes: Iterable[Shape], constant_s: int
) -> Iterator[tuple[Counts, int]]:
    """Requests of each second, and the second from which on windows are taken.

    Of each seed every shape and :data:`WANDERING`, at a random scale and noise level, and a
    constant load of ``constant_s``.
    """
    every = [*shapes, WANDERING]
    for seed in seeds:
        random = np.random.default_rng([seed, 2])
        for shape in every:
            scale = np.exp(random.uniform(np.log(0.2), np.log(30)))
            damping = int(random.choice([1, 2, 4, DAMPING_FACTOR, DAMPING_FACTOR, 16]))
            rate_rps = scale * rate_of(shape, seed=seed, duration_s=TRACE_S)
            yield drawn_counts(rate_rps, damping, random), int(random.integers(STEP_S))
        yield np.full(constant_s, int(np.exp(random.uniform(0, np.log(1000))))), 0


def trained(
    examples: Examples,
    loss_of: Loss,
    *,
    inputs: int,
    outputs: int,
    batch: int,
    epochs: int,
    seed: int,
) -> tuple[dict[str, Floats], dict[str, Any]]:
    """Fit a one-layer LSTM and its linear head with Adam; the same seed gives the same weights.

    Args:
        examples: asked once an epoch; as many windows each time.
        loss_of: what is made small.
        inputs: of the network at each step.
        outputs: of the head.
        batch: windows of one step of Adam.
        epochs: how often the examples are gone through.
        seed: of the first weights, and of what is drawn.

    Returns:
        arrays by field of :class:`lstm.Weights`, and metadata.

    Raises:
        UnavailableError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UnavailableError(
            "training needs torch; fix: pip install ipa-energy[train]"
        ) from error
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    network = torch.nn.LSTM(inputs, lstm.UNITS, batch_first=True)
    head = torch.nn.Linear(lstm.UNITS, outputs)
    torch.nn.init.zeros_(head.weight)  # start with what came last
    torch.nn.init.zeros_(head.bias)
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    schedule = None
    for epoch in range(epochs):
        random = np.random.default_rng([seed, epoch])
        x, y = (torch.tensor(each, dtype=torch.float32) for each in examples(random))
        if schedule is None:
            steps = epochs * -(-len(x) // batch)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        total = 0.0
        for rows in torch.tensor(random.permutation(len(x))).split(batch):
            states, _ = network(x[rows])
            loss = loss_of(x[rows], y[rows], head(states[:, -1]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(x):.5f}", file=sys.stderr)
    metadata = {"torch": str(torch.__version__), "epochs": epochs, "seed": seed}
    return _arrays(network, head), metadata


def _arrays(network: Any, head: Any) -> dict[str, Floats]:
    tensors = {
        "weight_ih": network.weight_ih_l0,
        "weight_hh": network.weight_hh_l0,
        "bias_ih": network.bias_ih_l0,
        "bias_hh": network.bias_hh_l0,
        "head_weight": head.weight,
        "head_bias": head.bias,
    }
    return {name: each.detach().numpy().astype(np.float64) for name, each in tensors.items()}

"""A GPU's clock as a knob: the OSSNA23 demo's sweep as options, a clock for each load.

    python experiments/clocks/clocks.py        prints the table, writes experiments/clocks/result.md

The demo (Wang et al., Open Source Summit North America 2023) sweeps the clock of a V100 that serves
BLOOM and finds joules a batch U-shaped. Its data have no licence: four figures are quoted. It gives
no time of a batch by clock; here it is **modelled** as proportional to 1/clock, one second at
1380 MHz, and the watts of a waiting GPU as 40 W, so that all but the quoted joules is an estimate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import decide
from ipa_energy.records import Allocation, Option, Provenance, Stage

HERE = Path(__file__).resolve().parent
JOULES = {150: 1320.0, 870: 306.0, 1110: 270.0, 1380: 360.0}
"""MHz → joules a batch, as the demo prints them."""
IDLE_W = 40.0


def option(clock_mhz: int) -> Option:
    """A replica on one GPU at a clock; a request is a batch."""
    took_s = 1380 / clock_mhz
    return Option(
        variant="BLOOM",
        allocation=Allocation.of(0, 1, "V100", clock_mhz=float(clock_mhz)),
        batch=1,
        latency_s=took_s,
        latency_avg_s=took_s,
        latency_p99_s=took_s,
        throughput_rps=1 / took_s,
        accuracy=1.0,
        dynamic_energy_j=JOULES[clock_mhz] - IDLE_W * took_s,
        idle_power_w=IDLE_W,
        provenance=Provenance("quoted", "estimated", 1, float("nan")),
    )


OPTIONS = {clock: option(clock) for clock in JOULES}


def joules(clocks: list[int], load_rps: float, sla_s: float, gpus: int) -> float:
    """Of a request by the best plan with these clocks; infinity if none keeps up."""
    settings = Settings(
        alpha=0.0,
        beta=0.0,
        gamma=0.0,
        energy_weight=1.0,
        latency_sla_s=sla_s,
        scaling_cap=gpus,
        batching_cap=1,
    )
    stage = Stage("llm", "llm", tuple(OPTIONS[clock] for clock in clocks))
    result = decide(Program([stage], settings), load_rps)
    return result.best.joules_per_request if result.plans else float("inf")


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE / "result.md", help="file to write")
    out = parser.parse_args().out
    hours = np.arange(24)
    loads = 5 + 4 * np.sin((hours - 9) / 24 * 2 * np.pi)
    lines = [HEAD]
    for gpus, sla_s in ((10, 1.1), (10, 1.3), (16, 1.1), (16, 1.3)):
        each = {clock: [joules([clock], load, sla_s, gpus) for load in loads] for clock in JOULES}
        ours = [joules(list(JOULES), load, sla_s, gpus) for load in loads]
        weights = loads / loads.sum()
        fixed = {clock: float(np.dot(weights, values)) for clock, values in each.items()}
        best = min(fixed, key=fixed.__getitem__)
        default, swept = fixed[1380], fixed[1110]
        told = [
            default,
            swept,
            float(np.dot(weights, ours)),
            fixed[best],
            float(min(JOULES.values())),
        ]
        shown = " | ".join("–" if np.isinf(value) else f"{value:.0f}" for value in told)
        lines.append(f"| {gpus} | {sla_s:g} | {shown} | {best} MHz |\n")
    text = "".join([*lines, TAIL])
    print(text)
    out.write_text(text)


HEAD = """\
# The clock of a GPU as a knob

`python experiments/clocks/clocks.py`: joules a batch of BLOOM on V100s over a day whose load goes
from 1 to 9 batches a second. *Theirs*: the default clock, and the clock of the demo's sweep (1110
MHz); *ours* chooses clock and GPUs each hour. Joules a batch are quoted (1320 at 150 MHz, 306 at
870, 270 at 1110, 360 at 1380); times and idle watts are modelled, so these are estimates. *Bound*:
the least joules a batch, nothing idle. –: that clock keeps the SLA or the peak not.

| GPUs | SLA (s) | default 1380 MHz | 1110 MHz | ours | best static | bound | which clock |
|---|---|---|---|---|---|---|---|
"""
TAIL = """
The least joules a batch are at 1110 MHz; what an hour's choice adds is the peak, which few GPUs at
that clock do not reach, and the SLA, which may rule it out.
"""

if __name__ == "__main__":
    main()

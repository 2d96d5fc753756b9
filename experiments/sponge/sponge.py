"""Cores in place under an SLO that moves: Sponge's rule, ours, the best fixed cores, the bound.

    python experiments/sponge/sponge.py        prints the table, writes experiments/sponge/result.md

Sponge (Razavi et al., EuroMLSys'24) resizes one replica in place, each second, to the fewest cores
on which some batch keeps what the network left of the SLO. Its data have no licence, so only the
latency law fitted to its 30 published points is used (R² 0.97): l(b, c) = 18.29 b/c + 4.47 b +
45.73/c + 1.52 ms. The network's delays are **made up** (seeded), and no joules are published: cores
are what is counted. *Ours* is ``latency_sla_s`` as a limit of the moment: batch, cores and replicas
by the program; *in place* it may change every second like Sponge.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import decide
from ipa_energy.records import Allocation, Option, Stage

HERE = Path(__file__).resolve().parent
SLO_S = 0.6
SECONDS = 600
CORES = range(1, 17)
BATCHES = (1, 2, 4, 8, 16)


def latency_s(batch: float, cores: float) -> float:
    """The law fitted to Sponge's figure."""
    return (18.29 * batch / cores + 4.47 * batch + 45.73 / cores + 1.52) / 1000


def option(batch: int, cores: int) -> Option:
    """A batch on so many cores."""
    took_s = latency_s(batch, cores)
    return Option(
        variant="model",
        allocation=Allocation.of(cores),
        batch=batch,
        latency_s=took_s,
        latency_avg_s=took_s,
        latency_p99_s=took_s,
        throughput_rps=batch / took_s,
        accuracy=1.0,
        dynamic_energy_j=math.nan,
        idle_power_w=math.nan,
        provenance=None,
    )


OPTIONS = tuple(option(batch, cores) for cores in CORES for batch in BATCHES)


def left_of_slo_s(seed: int) -> Floats:
    """What the network leaves of the SLO, second by second: 0.08 to 0.55 s, slow and fast waves."""
    rng = np.random.default_rng(seed)
    at = np.arange(SECONDS)
    delay_s = 0.25 + 0.13 * np.sin(at / 40 + rng.uniform(0, 6)) + 0.06 * np.sin(at / 7)
    bursts = 0.15 * (rng.random(SECONDS) < 0.03)
    return SLO_S - np.clip(delay_s + bursts + rng.normal(0, 0.03, SECONDS), 0.05, 0.52)


def fewest_cores(load_rps: float, sla_s: float, *, most_replicas: int) -> float:
    """Cores of the best plan; NaN if none keeps the SLA."""
    settings = Settings(alpha=0.0, beta=1.0, gamma=1e-6, scaling_cap=most_replicas, batching_cap=16)
    program = Program([Stage("one", "one", OPTIONS)], settings)
    limited = dataclasses.replace(settings, latency_sla_s=sla_s)
    result = decide(Program(program.stages, limited), load_rps)
    return result.best.cost_cores if result.plans else math.nan


def sponge_cores(load_rps: float, sla_s: float) -> float:
    """The fewest cores of one replica on which some batch is in time and keeps up."""
    for cores in CORES:
        for batch in BATCHES:
            took_s = latency_s(batch, cores)
            if (batch - 1) / load_rps + took_s <= sla_s and batch / took_s >= load_rps:
                return float(cores)
    return math.nan


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE / "result.md", help="file to write")
    out = parser.parse_args().out
    lines = [HEAD]
    for load_rps in (20.0, 60.0, 100.0, 140.0):
        left_s = np.round(left_of_slo_s(0), 3)
        limits = np.unique(left_s)
        theirs = {each: sponge_cores(load_rps, each) for each in limits}
        ours = {each: fewest_cores(load_rps, each, most_replicas=100) for each in limits}
        rows = np.array([[theirs[each], ours[each]] for each in left_s])
        kept = ~np.isnan(rows).any(axis=1)
        static = np.nanmax(rows[:, 1])
        means = rows[kept].mean(axis=0)
        unkept = np.isnan(rows).mean(axis=0)
        lines.append(
            f"| {load_rps:g} | {means[0]:.2f} | {means[1]:.2f} | {static:.0f} | {means[1]:.2f}"
            f" | {unkept[0]:.1%} | {unkept[1]:.1%} |\n"
        )
    text = "".join([*lines, TAIL])
    print(text)
    out.write_text(text)


HEAD = f"""\
# Cores under an SLO that moves

`python experiments/sponge/sponge.py`: {SECONDS} s, SLO {SLO_S:g} s, network delays made up, the
latency law fitted to Sponge's published points. Mean cores over the seconds that both can serve;
the best static allocation is that of the tightest second. A decision knows the second's limit, so
ours is the bound on what cores, batches and replicas of this law can save.

| requests a second | theirs | ours | best static | bound | theirs cannot | ours cannot |
|---|---|---|---|---|---|---|
"""
TAIL = """
Sponge resizes one replica, so that its throughput is bounded by the law at 16 cores; two small
replicas are cheaper than a large one wherever the law's parallel part is small.
"""

if __name__ == "__main__":
    main()

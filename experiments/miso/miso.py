"""Jobs on slices of GPUs: MISO's way, all at once, and the best fixed cut.

    python experiments/miso/miso.py        prints the table, writes experiments/miso/result.md

MISO (Li et al., SoCC'22) puts training jobs on GPUs and cuts each GPU so that the speeds of its
jobs, relative to a whole GPU, add up to the most. The speeds here are those that it measured on
slices of an A100-40GB. *Theirs*: jobs go to the GPU with the fewest, and each GPU is cut best for
its own jobs (exactly, where MISO predicts speeds from a shared GPU). *Ours*: one program for all
GPUs (:mod:`ipa_energy.optimizer.pools`), a stage a job.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from pathlib import Path

import numpy as np

from ipa_energy.gpu_partitions import GpuPool, Partition, partitions_of
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import decide
from ipa_energy.records import Allocation, Option, Stage

HERE = Path(__file__).resolve().parent
KIND = "A100-40GB"
SLICES = {1: "mig-1g.5gb", 2: "mig-2g.10gb", 3: "mig-3g.20gb", 4: "mig-4g.20gb", 7: "mig-7g.40gb"}
MIXES = 100

Speeds = dict[int, float]
"""Sevenths of a GPU → speed relative to a whole one."""


def read_jobs() -> list[Speeds]:
    """One a model and batch size; what does not fit a slice is not in it."""
    jobs: dict[tuple[str, str], Speeds] = {}
    with (HERE / "miso-training-mig-a100-40gb.csv").open() as file:
        for row in csv.DictReader(file):
            speeds = jobs.setdefault((row["model"], row["batch"]), {})
            speeds[int(row["mig_slice_gpc"])] = float(row["relative_speed_of_7g"])
    return list(jobs.values())


def best_cut(jobs: list[Speeds], gpus: int, partitions: tuple[Partition, ...]) -> float:
    """The most that the speeds of these jobs can add up to on so many GPUs; −inf if not all fit."""
    stages = []
    for number, speeds in enumerate(jobs):
        options = tuple(
            Option(
                variant=f"{size}g",
                allocation=Allocation.of(0, 0, KIND, resources={SLICES[size]: 1}),
                batch=1,
                latency_s=1.0,
                latency_avg_s=1.0,
                latency_p99_s=1.0,
                throughput_rps=1.0,
                accuracy=speed,
                dynamic_energy_j=math.nan,
                idle_power_w=math.nan,
                provenance=None,
            )
            for size, speed in speeds.items()
            if any(part.count(SLICES[size]) for part in partitions)
        )
        if not options:
            return -math.inf
        stages.append(Stage(f"job{number}", f"job{number}", options))
    pool = GpuPool(KIND, gpus, partitions)
    settings = Settings(alpha=1.0, beta=0.0, gamma=0.0, scaling_cap=1, batching_cap=1, gpus=(pool,))
    plans = decide(Program(stages, settings), 1.0, "highs").plans
    return plans[0].objective if plans else -math.inf


def theirs(jobs: list[Speeds], gpus: int, partitions: tuple[Partition, ...]) -> float:
    """Jobs to the GPU with the fewest, each GPU cut best for its own."""
    return sum(best_cut(jobs[gpu::gpus], 1, partitions) for gpu in range(gpus))


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE / "result.md", help="file to write")
    out = parser.parse_args().out
    known, rng = read_jobs(), np.random.default_rng(0)
    single = tuple(p for p in partitions_of(KIND) if not p.count("mig-1g.10gb"))
    lines = [HEAD]
    for gpus, count in itertools.product((2, 4), (2, 3)):
        figures: list[tuple[float, float, list[float], float]] = []
        while len(figures) < MIXES:
            jobs = [known[int(at)] for at in rng.integers(0, len(known), gpus * count)]
            # MISO keeps jobs that fit nowhere waiting; here such a mix is drawn again.
            mine = theirs(jobs, gpus, single)
            if mine == -math.inf:
                continue
            ours = best_cut(jobs, gpus, single)
            static = [best_cut(jobs, gpus, (part,)) for part in single]
            bound = sum(max(speeds.values()) for speeds in jobs)
            figures.append((mine, ours, [value / gpus for value in static], bound))
        fixed = np.array([each[2] for each in figures])
        kept = np.where(np.isfinite(fixed), fixed, 0.0).mean(axis=0)
        row = [np.mean([each[0] for each in figures]) / gpus]
        row += [np.mean([each[1] for each in figures]) / gpus, kept.max()]
        row.append(np.mean([each[3] for each in figures]) / gpus)
        gain = np.mean([each[1] / each[0] - 1 for each in figures])
        told = " | ".join(f"{value:.3f}" for value in row)
        label = single[int(kept.argmax())].label
        lines.append(f"| {gpus} | {count} | {told} | {gain:.1%} | {label} |\n")
    text = "".join([*lines, TAIL])
    print(text)
    out.write_text(text)


HEAD = f"""\
# Training jobs on slices of A100s

`python experiments/miso/miso.py`: speeds that MISO measured on an A100-40GB, {MIXES} mixes of jobs
a row; the sum of the jobs' speeds per GPU, one job alone on a whole GPU being 1. *Bound*: every job
alone on a GPU of its own. A fixed cut on which some job does not fit counts 0.

| GPUs | jobs a GPU | theirs | ours | best static cut | bound | ours over theirs | the static cut |
|---|---|---|---|---|---|---|---|
"""
TAIL = """
Theirs knows the speeds exactly here; MISO predicts them. What ours gains is which jobs share a GPU.
MISO's joules cannot be told apart by slice: it publishes watts of whole GPUs.
"""

if __name__ == "__main__":
    main()

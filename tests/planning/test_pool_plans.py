"""Plans that hindsight chooses from on a pool of GPUs: each of them fits it."""

from __future__ import annotations

import dataclasses

import numpy as np
from option_maker import make_option

from ipa_energy.gpu_partitions import GpuPool, partitions_of
from ipa_energy.optimizer.pools import cuts_of
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.planning.hindsight import open_plans, steps_of
from ipa_energy.records import Allocation, Stage


def test_every_plan_to_choose_from_can_be_cut() -> None:
    pool = GpuPool("A100-80GB", 1, partitions_of("A100-80GB"))
    sizes = {"mig-1g.10gb": 10.0, "mig-3g.40gb": 25.0, "gpu": 60.0}
    options = tuple(
        dataclasses.replace(
            make_option(f"v{name}", throughput_rps=rps, latency_s=1 / rps, accuracy=rps / 100),
            allocation=Allocation.of(0, 0, "A100-80GB", resources={name: 1}),
        )
        for name, rps in sizes.items()
    )
    settings = Settings(
        alpha=1.0, beta=0.0, gamma=0.0, scaling_cap=20, batching_cap=1, gpus=(pool,)
    )
    program = Program([Stage("a", "a", options), Stage("b", "b", options)], settings)
    counts = np.array([5] * 30 + [20] * 30)
    plans = open_plans(program, steps_of(counts, 10, 0.0, 0.5), 1.0)
    assert plans
    for plan in plans:
        running = [(stage.option, stage.replicas) for stage in plan]
        assert cuts_of([pool], running)["A100-80GB"] is not None

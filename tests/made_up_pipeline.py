"""Pipelines of one stage, made so that energy adds a known share, or nothing."""

from __future__ import annotations

from pathlib import Path

from ipa_energy.experiment import Experiment, load_experiment

HEADER = (
    "stage,variant,hardware,cpu_cores,gpu_share,batch,replicas,load_rps,latency_avg_s,"
    "latency_p99_s,throughput_rps,accuracy,dynamic_energy_j,idle_power_w,joules_per_request,"
    "energy_ci95_j,trials,meter,quality\n"
)
YAML = """
pipeline_name: made-up
nodes: [{node_name: only}]
task_name: [only]
profile: profile.csv
alpha: 10
beta: 0.1
normalize_accuracy: false
latency_sla_s: 1
allocation_mode: variable
initial_active_model: [small]
workload_type: csv
workload_config: {path: load.csv}
predictor_type: max
reconfiguration_s: 0
"""


def pipeline(
    folder: Path, options: list[tuple[str, str, int, float, float]], initial: str = "small"
) -> Experiment:
    """One stage of (variant, hardware, cores, accuracy, joules); no idle watts."""
    rows = [
        f"only,{variant},{hardware},{cores},0,1,1,50,0.02,0.02,50,{accuracy},{joules},0,{joules},"
        "0,3,made-up,measured\n"
        for variant, hardware, cores, accuracy, joules in options
    ]
    folder.mkdir(exist_ok=True)
    (folder / "profile.csv").write_text(HEADER + "".join(rows))
    # Requests come after the first decision: what runs before it serves none.
    (folder / "load.csv").write_text("\n".join(["requests", *["0"] * 10, *["4"] * 50]) + "\n")
    path = folder / "made-up.yaml"
    path.write_text(YAML.replace("[small]", f"[{initial}]"))
    return load_experiment(path)


THIRTY_PERCENT = [
    ("small", "hungry", 1, 0.5, 10.0),
    ("small", "frugal", 2, 0.5, 7.0),
    ("large", "hungry", 2, 0.8, 20.0),
    ("large", "frugal", 4, 0.8, 14.0),
]
"""The frugal hardware holds twice the cores for 70 % of the joules: no weight of cores finds it."""

NOTHING = [("small", "cpu", 1, 0.5, 10.0), ("large", "cpu", 2, 0.8, 20.0)]
"""Joules go with cores: whatever energy picks, a weight of cores picks as well."""

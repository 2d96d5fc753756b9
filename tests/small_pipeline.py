"""A small two-stage pipeline in files, its profile in round figures."""

from __future__ import annotations

from pathlib import Path

HEADER = (
    "stage,variant,hardware,cpu_cores,gpu_share,batch,replicas,load_rps,latency_avg_s,"
    "latency_p99_s,throughput_rps,accuracy,dynamic_energy_j,idle_power_w,joules_per_request,"
    "energy_ci95_j,trials,meter,quality"
)

# variant → (seconds of one request on one core, accuracy)
VARIANTS = {
    "find": {"find-s": (0.08, 0.45), "find-m": (0.2, 0.6), "find-l": (0.5, 0.7)},
    "name": {"name-s": (0.03, 0.7), "name-l": (0.12, 0.8)},
}

PIPELINE = """\
pipeline_name: small
nodes:
  - node_name: finder
    max_batch_time: '1'
  - node_name: namer
    max_batch_time: '1'
task_name: [find, name]
initial_active_model: [find-s, name-s]
initial_cpu_allocation: [1, 1]
initial_batch: [1, 1]
profile: profile.csv
alpha: 20
beta: 0.5
batching_cap: 8
scaling_cap: 20
threshold: 1
allocation_mode: variable
accuracy_method: sum
normalize_accuracy: false
latency_sla_s: 3
predictor_type: max
workload_type: bursty
workload_config: {duration_s: 120}
"""


def profile_rows() -> list[str]:
    """Rows with round figures: a batch of b takes (1 + 3b)/4 times a single request."""
    rows = []
    for stage, variants in VARIANTS.items():
        for variant, (seconds, accuracy) in variants.items():
            for cores in (1, 2):
                for batch in (1, 2, 4, 8):
                    latency_s = seconds * (1 + 3 * batch) / 4 / cores**0.8
                    dynamic_j = 2.0 * latency_s * cores / batch
                    idle_w = 0.6 * cores
                    rate_rps = batch / latency_s
                    joules = dynamic_j + idle_w / rate_rps
                    rows.append(
                        f"{stage},{variant},cpu,{cores},0,{batch},1,{rate_rps:.6g},{latency_s:.6g},"
                        f"{latency_s:.6g},{rate_rps:.6g},{accuracy},{dynamic_j:.6g},{idle_w:.6g},"
                        f"{joules:.6g},{dynamic_j / 100:.6g},3,cpu-time,estimated"
                    )
    return rows


def write_small_pipeline(folder: Path) -> Path:
    """Write the YAML and its profile into a folder that exists; the YAML's path."""
    (folder / "profile.csv").write_text("\n".join([HEADER, *profile_rows(), ""]))
    path = folder / "small.yaml"
    path.write_text(PIPELINE)
    return path

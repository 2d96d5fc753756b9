"""The video pipeline with and without energy, beside what hindsight would have done."""

import tempfile
from pathlib import Path

import ipa_energy as ie

with tempfile.TemporaryDirectory() as folder:
    ie.run("video", Path(folder) / "plain", workload="steady-low")
    ie.run("video", Path(folder) / "energy", workload="steady-low", energy_weight=2)
    found = ie.compare(Path(folder) / "plain", Path(folder) / "energy", hindsight=True)

for run in (*found.runs, *found.baselines):
    print(f"{run.name}: {run.joules_per_request:.2f} J, {run.sla_attainment:.1%} in the SLA")

"""A pipeline of your own: a YAML and a profile CSV, planned at three loads."""

from pathlib import Path

import ipa_energy as ie

HERE = Path(__file__).parent

pipeline = ie.load_pipeline(HERE / "own_pipeline.yaml")
for load_rps in (2, 8, 20):
    result = ie.plan(pipeline, load_rps)
    if result.plans:
        best = result.plans[0]
        print(f"{load_rps} rps: {best.label}, {best.joules_per_request:.2f} J per request")
    else:
        print(f"{load_rps} rps: {result.conflict}")

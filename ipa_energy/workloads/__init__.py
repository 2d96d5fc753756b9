"""Load traces: how many requests arrive in each second of a run, and where the numbers come from.

Four sources behind one record, :class:`Workload`: a constant load, our own seeded generators with
the statistics of IPA's four windows (:mod:`.shapes`), CSV files and IPA's own trace in
a checkout (:mod:`.trace_files`). :func:`workload_from` picks by the pipeline YAML.
"""

from ipa_energy.workloads.choice import workload_from
from ipa_energy.workloads.shapes import SHAPES, named_workload
from ipa_energy.workloads.trace import Workload, damped, static_workload
from ipa_energy.workloads.trace_files import csv_workload, twitter_workload

__all__ = [
    "SHAPES",
    "Workload",
    "csv_workload",
    "damped",
    "named_workload",
    "static_workload",
    "twitter_workload",
    "workload_from",
]

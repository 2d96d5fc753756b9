"""The load of one case: constant, or a trace that every configuration has to last through."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ipa_energy.optimizer.problem import Loads, planned_load_rps
from ipa_energy.workloads import Workload, static_workload

DEFAULT_DURATION_S = 120
"""Length of a constant load: long enough that the start from an empty system does not count."""


@dataclass(frozen=True, slots=True)
class StudyLoad:
    """What the configurations of one case are given.

    Attributes:
        name: ``10 rps``, or the name of the trace.
        workload: requests per second.
        loads: what their plans are made for: replicas carry the peak, batches wait longest where
            the load is lowest, joules are those of the mean. All equal for a constant load.
    """

    name: str
    workload: Workload
    loads: Loads

    @property
    def folder(self) -> str:
        """The name as that of a folder."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-.") or "load"


def constant_load(load_rps: float, duration_s: int = DEFAULT_DURATION_S) -> StudyLoad:
    """A constant load.

    Raises:
        ConfigError: the load is not a positive number, or the duration is out of range.
    """
    workload = static_workload(load_rps, duration_s)
    planned = planned_load_rps(load_rps)
    return StudyLoad(f"{load_rps:g} rps", workload, Loads(planned, planned, planned))


def trace_load(workload: Workload) -> StudyLoad:
    """A trace."""
    return StudyLoad(workload.name, workload, Loads.of(workload.counts))

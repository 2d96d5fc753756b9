"""The run folder: IPA's files with energy, written so that a kill loses no finished interval.

::

    log = RunLog.create(path, config_yaml=…, info=RunInfo(…), attachments={"workload.csv": …})
    log.append_interval(Interval(…))      one per adaptation interval, and the drain
    log.complete(totals)                  0.json, adaptation_log.json, then run.json says complete

    run = read_run(path)                  complete, running, killed, or IPA's own
"""

from ipa_energy.runlog.reader import Run, RunInMemory, read_run
from ipa_energy.runlog.record import Interval, RunInfo, RunStatus, Totals
from ipa_energy.runlog.step import Finished, StageStep, Step
from ipa_energy.runlog.writer import RunLog

__all__ = [
    "Finished",
    "Interval",
    "Run",
    "RunInMemory",
    "RunInfo",
    "RunLog",
    "RunStatus",
    "StageStep",
    "Step",
    "Totals",
    "read_run",
]

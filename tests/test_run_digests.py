"""Run folders of the bundled workloads, byte for byte: no change of structure may change a result.

Clocks stand still, so that times of decisions and of the run's start are the same in every run. A
change that alters results on purpose says so in the changelog and stores new digests::

    python tests/test_run_digests.py
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from pathlib import Path

import pytest

from ipa_energy.experiment import load_experiment, run_experiment

DIGESTS = Path(__file__).with_name("run_digests.json")
CONFIG = Path(__file__).parent.parent / "configs" / "video.yaml"
WORKLOADS = ("bursty", "steady-low", "steady-high", "fluctuating")
CASES = {
    f"{workload}-weight-{weight:g}": {"workload_type": workload, "energy_weight": weight}
    for workload in WORKLOADS
    for weight in (0.0, 2.0)
}
FILES = ("0.json", "adaptation_log.json", "profile.csv", "workload.csv")
NOT_OF_THE_RESULT = ("versions", "name")


def digests_of(overrides: dict[str, object], folder: Path) -> dict[str, str]:
    """File of a run folder → SHA-256 of its bytes; of run.json what belongs to the result."""
    run_experiment(load_experiment(CONFIG, overrides), folder)
    found = {name: (folder / name).read_bytes() for name in FILES}
    info = json.loads((folder / "run.json").read_text())
    for key in NOT_OF_THE_RESULT:
        info.pop(key)
    found["run.json"] = json.dumps(info, sort_keys=True).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


@pytest.mark.parametrize("case", CASES)
def test_run_folders_are_those_of_the_stored_digests(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    stored = json.loads(DIGESTS.read_text())[case]
    assert digests_of(CASES[case], tmp_path / "run") == stored


def _store() -> None:
    time.time = lambda: 1_700_000_000.0
    time.perf_counter = lambda: 0.0
    with tempfile.TemporaryDirectory() as folder:
        found = {case: digests_of(CASES[case], Path(folder) / case) for case in CASES}
    DIGESTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    _store()

"""Records that the profiling tests share."""

import pytest

from ipa_energy.profiling.trial import Trial


@pytest.fixture
def make_trial():
    """A trial of two 0.1 s batches at 4 J, but for what a test changes."""

    def make(**changes):
        plain = {
            "started_utc": "2024-01-01T00:00:00+00:00",
            "load_s": 1.0,
            "load_energy_j": 1.0,
            "warm_up_s": [0.1],
            "settled": True,
            "latencies_s": [0.1, 0.1],
            "busy_s": 0.2,
            "cpu_s": 0.2,
            "dynamic_energy_j": 4.0,
            "idle_power_w": 1.0,
            "idle_drift_w": 0.0,
            "foreign_load": 0.0,
            "neighbour_load": 0.0,
            "contended": False,
            "repeats": 0,
            "peak_memory_bytes": 1,
            "meter": "fake",
            "quality": "measured",
        }
        return Trial(**(plain | changes))

    return make

"""``--meter`` for replicas: what each name, and ``auto``, comes to."""

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters import discovery
from ipa_energy.meters.base import MeterStatus
from ipa_energy.profiling import replica_meter as module
from ipa_energy.profiling.gpus import GpuPool
from ipa_energy.profiling.replica_meter import replica_meter
from ipa_energy.testing import FakeMeter

GPUS = GpuPool(("GPU-a", "GPU-b"), "Fake GPU", {})


class Named(FakeMeter):
    """A meter with a name, that knows whether it was closed."""

    def __init__(self, name, quality="measured"):
        super().__init__(5.0, quality=quality)
        self.name, self.closed = name, False

    def close(self):
        self.closed = True


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine whose sources have the states that a test says; the meters it opened."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    opened = []

    def make(**states):
        statuses = [
            MeterStatus(name.replace("_", "-"), state, f"is {state}", "a fix")
            for name, state in states.items()
        ]
        found = discovery.Discovery(tuple(statuses), None)
        monkeypatch.setattr(discovery, "discover", lambda places: found)
        return opened

    def open_meter(name, places):
        opened.append(Named(name))
        return opened[-1]

    def gpu_meter(part, places, gpus, stack):
        return Named(part, "estimated" if part == "nvml-power" else "measured")

    monkeypatch.setattr(discovery, "open_meter", open_meter)
    monkeypatch.setattr(module, "_gpu_meter", gpu_meter)
    return make


def chosen(name="auto", **changes):
    """Names, quality, and what each part counts and is shared by."""
    with replica_meter(name, **changes) as choice:
        shared = [(part.counts, part.shared_by is not None) for part in choice.parts]
        return choice.meta["name"], choice.meta["quality"], shared


@pytest.mark.parametrize(
    ("states", "gpus", "expected"),
    [
        ({"rapl": "measured", "perf": "measured"}, None, ("rapl", "measured")),
        ({"rapl": "dead", "perf": "measured"}, None, ("perf", "measured")),
        ({"rapl": "absent", "nvml": "measured"}, None, ("cpu-time", "estimated")),
        ({"rapl": "measured", "nvml": "measured"}, GPUS, ("nvml+rapl", "measured")),
        ({"rapl": "denied", "nvml": "measured"}, GPUS, ("nvml+cpu-time", "estimated")),
        (
            {"rapl": "measured", "nvml": "absent", "nvml_power": "estimated"},
            GPUS,
            ("nvml-power+rapl", "estimated"),
        ),
    ],
)
def test_auto_takes_the_best_of_each_that_works(machine, states, gpus, expected):
    machine(**states)
    assert chosen(gpus=gpus)[:2] == expected


def test_auto_without_a_gpus_joules_says_why(machine):
    machine(rapl="measured", nvml="denied")
    with pytest.raises(
        MeterUnavailableError, match="of the GPUs here: nvml: is denied; fix: a fix"
    ):
        chosen(gpus=GPUS)


def test_parts_know_what_they_count_and_who_shares_it(machine):
    machine()
    assert chosen("cpu-time+nvml", gpus=GPUS) == (
        "nvml+cpu-time",
        "estimated",
        [("GPU", True), ("CPU", False)],
    )
    with replica_meter("nvml+rapl", gpus=GPUS) as choice:
        assert choice.parts[0].shared_by == 2
        assert choice.meta["parts"]["nvml"]["gpus"] == "2 × Fake GPU"
        assert choice.observed["nvml"] == {"min_window_s": 0.01}


def test_gpus_alone_are_measured_with_a_warning(machine, caplog):
    machine()
    assert chosen("nvml", gpus=GPUS)[:2] == ("nvml", "measured")
    assert "the processors' joules will be missing" in caplog.text


def test_counters_are_closed_with_the_block_also_after_an_error(machine):
    opened = machine()
    with pytest.raises(RuntimeError), replica_meter("rapl"):
        raise RuntimeError
    assert [meter.closed for meter in opened] == [True]


@pytest.mark.parametrize(
    ("name", "gpus", "says"),
    [
        ("wattmeter", None, "'wattmeter' is no meter; allowed: auto, or one of rapl, perf"),
        ("rapl+perf", None, r"rapl \+ perf count the joules of the processors twice"),
        ("nvml+dcgm", GPUS, r"nvml \+ dcgm count the joules of the GPUs twice"),
        ("dcgm+rapl", None, "no entry runs on one.*--gpu"),
        ("prometheus", None, "'prometheus' has no joules to charge replicas with"),
        ("", None, "'' is no meter"),
    ],
)
def test_names_that_make_no_sense_are_refused_with_what_does(machine, name, gpus, says):
    machine()
    with pytest.raises(ConfigError, match=says):
        chosen(name, gpus=gpus)

"""``ipa-energy profile`` from the command line: options in, files, summary, JSON and status out."""

import json
import os
from pathlib import Path

import pytest

from ipa_energy.cli import main
from ipa_energy.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_UNAVAILABLE
from ipa_energy.meters import discovery
from ipa_energy.meters.cpu_time import process_tree_cpu_s
from ipa_energy.meters.sources import Source
from ipa_energy.profile_table.profile_csv import read_profile
from ipa_energy.profiling import profile_sweep as sweep_module
from ipa_energy.profiling.trial import TrialSettings
from ipa_energy.registries import METERS, Named
from ipa_energy.testing import FakeMeter

pytestmark = pytest.mark.measures

MODELS = str(Path(__file__).parents[1] / "profiling/fake_pipeline.py")


@pytest.fixture(autouse=True)
def short_and_on_one_core(monkeypatch, tmp_path):
    """Trials of milliseconds, no power model of this machine, one CPU."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    core = max(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {core})
    real = sweep_module.profile_pipeline

    def short(*args, settings, **kwargs):
        assert settings.min_window_s > 0
        shorter = TrialSettings(
            min_window_s=0.03,
            max_window_s=0.1,
            min_batches=2,
            idle_s=0.01,
            warm_up_min_s=0.0,
            warm_up_max_s=0.02,
            max_foreign_load=10.0,
            timeout_s=20.0,
        )
        return real(*args, settings=shorter, **kwargs)

    monkeypatch.setattr(sweep_module, "profile_pipeline", short)


@pytest.fixture
def profile(small_pipeline, tmp_path, capsys):
    """Runs the verb; exit status, stdout, stderr, path of the table."""
    out = tmp_path / "p.csv"

    def call(*options):
        words = ["profile", str(small_pipeline), "--models", MODELS, "--out", str(out)]
        if "--meter" not in options:
            words += ["--meter", "cpu-time"]
        status = main([*words, *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err, out

    return call


ONE = ("--variant", "steady", "--batch", "1", "--quick")


def test_quick_profile_of_one_entry(profile):
    status, text, _, out = profile(*ONE)
    assert status == EXIT_DONE
    assert text.splitlines()[0] == f"1 entry measured, 0 kept: {out}"
    assert "1 window, 0 contended, no outliers; one round, no drift known" in text
    assert [row.trials for row in read_profile(out)] == [1]


class PlugMeter(FakeMeter):
    """A meter of somebody else's."""

    name = "plug"


def test_a_meter_that_is_registered_while_the_program_runs_is_profiled_with(profile, monkeypatch):
    def drawn_j(elapsed_s):
        return 40.0 * elapsed_s + 20.0 * process_tree_cpu_s(os.getpid())

    entry = Named("what the plug counts", Source(lambda places: PlugMeter(drawn_j)))
    monkeypatch.setitem(METERS, "plug", entry)
    status, _, err, out = profile(*ONE, "--meter", "plug")
    assert (status, err) == (EXIT_DONE, "")
    (row,) = read_profile(out)
    assert (row.meter, row.quality) == ("plug", "measured")


def test_json_is_one_object_with_stability(profile):
    status, text, _, _ = profile(*ONE, "--json")
    document = json.loads(text)
    assert status == EXIT_DONE
    assert (document["measured"], document["predicted"], document["failures"]) == (1, 0, [])
    assert document["stability"]["windows"] == 1
    assert document["replica_check"] is None


def test_budget_predicts_the_rest_and_says_so(profile):
    status, text, _, out = profile(
        "--variant", "steady", "--variant", "slower", "--quick", "--budget", "60%"
    )
    assert status == EXIT_DONE
    assert text.startswith("5 entries measured, 0 kept, 3 predicted (estimated")
    assert sum(row.trials == 0 for row in read_profile(out)) == 3
    assert "work cpu: mean error of the fits at held-out points: latency_avg_s" in text


def test_only_changed_goes_on_with_what_is_there(profile):
    profile(*ONE)
    status, text, _, _ = profile(*ONE, "--only-changed")
    assert status == EXIT_DONE
    assert text.startswith("0 entries measured, 1 kept")


def test_failing_entry_is_named_and_the_status_says_so(profile):
    status, text, _, _ = profile("--variant", "raises", "--batch", "1", "--quick", "--json")
    assert status == EXIT_UNAVAILABLE
    assert "bad input tensor" in json.loads(text)["failures"][0]["reason"]


def test_quick_trials_are_as_many_as_were_asked_for(profile):
    assert profile(*ONE, "--trials", "2")[0] == EXIT_DONE
    status, text, _, out = profile(*ONE, "--trials", "2", "--resume")
    assert (status, text.splitlines()[0]) == (EXIT_DONE, f"0 entries measured, 1 kept: {out}")
    assert [row.trials for row in read_profile(out)] == [2]


def test_no_table_is_named_that_was_not_written(profile):
    raises = ("--variant", "raises", "--batch", "1", "--quick")
    status, text, _, out = profile(*raises)
    assert (status, out.exists()) == (EXIT_UNAVAILABLE, False)
    assert text.splitlines()[0] == "0 entries measured, 0 kept: no p.csv is written"
    status, _, err, _ = profile(*raises)
    assert status == EXIT_BAD_INPUT
    assert f"{out.with_suffix('.trials.jsonl')}: trials of it exist already; fix: resume" in err
    assert json.loads(profile(*raises, "--resume", "--json")[1])["profile"] is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--budget", "0"), "40%"),
        (("--budget", "40"), "40%"),
        (("--replicas", "2"), "2 replicas on 1 cores each need 2 cores"),
        (("--window", "0"), "window of 0 s"),
        (("--weights", "steady=nowhere"), "VARIANT=FILE"),
        (("--variant", "stedy"), "no variant 'stedy'"),
        (("--meter", "perf", "--power-model", "m.json"), "a power model for perf"),
        (("--meter", "watts"), "'watts' is no meter"),
        (("--meter", "rapl+cpu-time"), "rapl + cpu-time count the joules of the processors twice"),
        (("--meter", "nvml+cpu-time"), "no entry runs on one"),
        (("--gpu", "1.5"), "a GPU share of 1.5"),
        (("--gpu", "-1"), "a GPU share of -1"),
        (("--time-limit", "soon"), "9min"),
        (("--cgroup", "/"), "their own processes"),
        (("--power-model", "nowhere.json"), "nowhere.json"),
        (("--quick", "--trials", "0"), "trials is 0"),
        (("--seed", "-1"), "--seed: a seed of -1; allowed: 0 or more"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(profile, options, says):
    status, _, err, out = profile(*options)
    assert status == EXIT_BAD_INPUT
    assert says in err
    assert not out.exists()


def machine(*statuses):
    """What the discovery of meters would find."""
    found = [type("Status", (), {"name": name, "state": state}) for name, state in statuses]
    return lambda places: type("Discovery", (), {"statuses": found})


def test_auto_takes_the_estimate_where_no_counter_moves(profile, monkeypatch):
    monkeypatch.setattr(discovery, "discover", machine(("rapl", "absent"), ("perf", "dead")))
    status, _, _, out = profile(*ONE, "--meter", "auto")
    assert status == EXIT_DONE
    assert {(row.meter, row.quality) for row in read_profile(out)} == {("cpu-time", "estimated")}


def test_auto_takes_the_counter_that_moves_and_closes_it(profile, monkeypatch):
    class Counter(FakeMeter):
        closed = False

        def close(self):
            self.closed = True

    counter = Counter(5.0)
    monkeypatch.setattr(discovery, "discover", machine(("rapl", "measured")))
    monkeypatch.setattr(discovery, "open_meter", lambda name, places: counter)
    status, text, _, _ = profile(*ONE, "--meter", "auto", "--json")
    # A counter that does not rise above idle under full load gives no figure.
    assert status == EXIT_UNAVAILABLE
    assert "dead" in json.loads(text)["failures"][0]["reason"]
    assert counter.closed


def test_dead_counter_asked_for_by_name_is_an_error_not_a_profile(profile):
    status, _, err, out = profile(*ONE, "--meter", "rapl")
    if status == EXIT_DONE:
        pytest.skip("this machine has RAPL")
    assert status == EXIT_UNAVAILABLE
    assert "rapl" in err
    assert not out.exists()

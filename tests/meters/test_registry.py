"""A meter that somebody else wrote, registered while the program runs."""

from __future__ import annotations

import json
import time

import pytest

from ipa_energy.cli import main
from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import CounterMeter, Reading
from ipa_energy.meters.composite import CompositeMeter
from ipa_energy.meters.discovery import open_meter
from ipa_energy.meters.sources import Places, Source
from ipa_energy.profiling.replica_meter import replica_meter
from ipa_energy.records import Quality
from ipa_energy.registries import METERS, Named
from ipa_energy.testing import FakeMeter


class PlugMeter(CounterMeter):
    """A plug of 40 W that counts in watt-seconds from when it was switched on."""

    name = "plug"
    quality: Quality = "measured"
    min_window_s = 0.01

    def read(self) -> Reading:
        now_s = time.perf_counter()
        return Reading(now_s, {"socket": 40.0 * now_s})


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a meter that is registered by one entry."""
    entry = Named("what the plug counts", Source(lambda places: PlugMeter()))
    monkeypatch.setitem(METERS, "plug", entry)
    return "plug"


def test_it_is_tried_and_shown(plug: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meters", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["meters"]
    (row,) = [row for row in rows if row["name"] == plug]
    assert (row["state"], row["domains"]) == ("measured", ["socket"])
    assert row["min_window_s"] >= 0.01


def test_it_measures_a_command(plug: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--meter", plug, "--idle", "0", "--json", "--", "sleep", "0.05"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["meter"], found["quality"]) == ("plug", "measured")
    assert found["energy_j"] == pytest.approx(40.0 * found["duration_s"])


def test_it_is_named_by_the_help(plug: str, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("measure", "profile"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert "plug" in capsys.readouterr().out.replace("\n", " ")


def test_replicas_are_charged_with_their_share_of_it(plug: str) -> None:
    with replica_meter(plug) as choice:
        assert (choice.meta["name"], choice.meta["scope"]) == ("plug", "machine")
        (part,) = choice.parts
        assert isinstance(part.meter_for(1, 1.0), PlugMeter)
    with pytest.raises(ConfigError, match="twice"), replica_meter(f"{plug}+cpu-time"):
        pass


def test_its_joules_are_not_counted_twice(plug: str) -> None:
    with pytest.raises(ConfigError, match="CPU twice"):
        CompositeMeter([PlugMeter(), open_meter("cpu-time", Places())])
    assert CompositeMeter([PlugMeter(), FakeMeter()]).name == "plug+fake"


def test_one_whose_counter_stands_still_is_dead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = Named("stands still", Source(lambda places: FakeMeter(0.0)))
    monkeypatch.setitem(METERS, "still", entry)
    assert main(["meters", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["meters"]
    assert [row["state"] for row in rows if row["name"] == "still"] == ["dead"]

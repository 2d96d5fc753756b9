"""Grams in figures that people know, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ipa_energy.comparing import RunMetrics, compare, comparison_table, metrics
from ipa_energy.comparing.saving_tables import carbon_table, equivalences
from ipa_energy.experiment import load_experiment, run_experiment

CONFIG = Path(__file__).parents[2] / "configs" / "video.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunMetrics:
    load = tmp_path_factory.mktemp("load") / "load.csv"
    load.write_text("second,requests\n" + "".join(f"{second},4\n" for second in range(30)))
    carbon = {"intensity": 250, "pue": 1.2}
    return metrics(
        run_experiment(load_experiment(CONFIG, {"workload": str(load), "carbon": carbon}))
    )


def test_a_million_requests_and_a_year(run: RunMetrics) -> None:
    assert run.grams == pytest.approx(run.energy_j * 250 * 1.2 / 3.6e6, rel=1e-6)
    table = carbon_table(compare([run]))
    assert table is not None
    per_million, a_year, intensity, kind = (cell for cell in table.rows[0].cells)
    assert per_million.key == pytest.approx(run.grams / 120 * 1e6)
    assert a_year.key == pytest.approx(run.grams / 30 * 365.25 * 86400 / 1000)
    assert intensity.key == pytest.approx(250, rel=1e-5)
    assert kind.text == "kind not said"
    assert "PUE of 1.2" in table.note


def test_a_year_is_as_well(run: RunMetrics) -> None:
    heavy = replace(run, grams=393.0 * 30 / (365.25 * 86400) * 1000)
    (sentence,) = equivalences([heavy])
    assert "393 kg, is about 1000 miles by an average passenger car" in sentence
    assert "EPA" in sentence
    assert "2022" in sentence


def test_grams_of_two_kinds_are_warned_of(run: RunMetrics) -> None:
    def of(name: str, kind: str) -> RunMetrics:
        return replace(run, name=name, settings={**run.settings, "carbon": {"kind": kind}})

    found = compare([of("a", "average"), of("b", "marginal")])
    assert any("grams of another kind" in text for text in found.warnings)
    assert not compare([of("a", "average"), of("b", "average")]).warnings


def test_runs_without_carbon_have_no_table_and_no_year(run: RunMetrics) -> None:
    without = replace(run, grams=float("nan"), settings={})
    assert carbon_table(compare([without])) is None
    assert equivalences([without]) == []
    assert "Carbon" not in comparison_table(compare([without]))

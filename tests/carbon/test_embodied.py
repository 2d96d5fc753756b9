"""Embodied grams: by hand over a change of replicas, and shown apart from log to page."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from option_maker import make_option
from test_run_carbon import CONFIG

from ipa_energy.comparing import RunMetrics, compare, comparison_table, metrics
from ipa_energy.comparing.saving_tables import carbon_table
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.runlog import Run
from ipa_energy.serving.simulated.energy_ledger import EnergyLedger, held

GRAMS_PER_CORE_HOUR = 1.5


def with_embodied(folder: Path) -> Path:
    """The shipped profile with a column of embodied grams, by cores."""
    profile = CONFIG.parent / "profiles" / "video-epyc-9005-2vcpu.csv"
    rows = list(csv.DictReader(profile.read_text().splitlines()))
    for row in rows:
        row["embodied_g_per_hour"] = str(GRAMS_PER_CORE_HOUR * float(row["cpu_cores"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path = folder / "profile.csv"
    path.write_text(text.getvalue())
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("embodied")
    keys = {
        "profile": str(with_embodied(folder)),
        "carbon": {"intensity": 250},
        "workload_config": {"duration_s": 120},
    }
    return run_experiment(load_experiment(CONFIG, keys), folder / "run")


def test_replicas_are_charged_while_they_exist() -> None:
    option = replace(make_option(), embodied_g_per_hour=7.2)
    ledger = EnergyLedger([held(0.0, [(option, 2, 0.0)])])
    ledger.hold(0, held(4.0, [(option, 5, 0.0)]))
    first = ledger.close(0.0, 10.0)
    assert first.embodied_g == pytest.approx((2 * 4 + 5 * 6) * 7.2 / 3600)
    assert ledger.close(10.0, 15.0).embodied_g == pytest.approx(5 * 5 * 7.2 / 3600)
    bare = EnergyLedger([held(0.0, [(make_option(), 2, 0.0)])])
    assert math.isnan(bare.close(0.0, 10.0).embodied_g)


def test_a_run_has_them_apart_and_the_sci_of_both(run: Run) -> None:
    figures = metrics(run)
    by_cores = GRAMS_PER_CORE_HOUR * figures.core_hours
    assert figures.embodied_g == pytest.approx(by_cores, rel=1e-3)
    assert figures.grams == pytest.approx(figures.energy_j * 250 / 3.6e6, rel=1e-6)
    sci = (figures.grams + figures.embodied_g) / figures.served
    assert figures.to_json()["sci_g_per_million_requests"] == pytest.approx(sci * 1e6)
    assert run.path is not None
    totals = json.loads((run.path / "run.json").read_text())["totals"]
    assert totals["embodied_g"] == pytest.approx(figures.embodied_g, rel=1e-6)
    assert totals["sci_g_per_request"] == pytest.approx(sci, rel=1e-6)


def test_the_table_has_columns_of_their_own(run: Run) -> None:
    figures = metrics(run)
    table = carbon_table(compare([figures]))
    assert table is not None
    assert [head.title for head in table.heads][:4] == ["carbon", "at this load", "embodied", "SCI"]
    carbon, _, embodied, sci = (cell.key for cell in table.rows[0].cells[:4])
    assert sci == pytest.approx(carbon + embodied)
    assert "Embodied" in table.note
    text = comparison_table(compare([figures]), width=80)
    assert all(len(line) <= 80 for line in text.splitlines())


def test_profiles_without_the_column_show_nothing_of_it(run: Run) -> None:
    bare: RunMetrics = replace(metrics(run), embodied_g=math.nan)
    table = carbon_table(compare([bare]))
    assert table is not None
    assert "embodied" not in [head.title for head in table.heads]
    assert "Embodied" not in table.note

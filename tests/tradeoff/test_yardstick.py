"""What energy saves at one load, on pipelines made so that it is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from made_up_pipeline import NOTHING, THIRTY_PERCENT, pipeline
from seeds import seeds
from small_programs import every_plan, random_small_program

from ipa_energy.cli import main
from ipa_energy.comparing.hull import Outcome, hull_of
from ipa_energy.tradeoff.energy_added import corners


@pytest.mark.parametrize("seed", seeds(12))
def test_corners_are_the_hull_of_every_plan(seed: int) -> None:
    """Accuracy and penalty of all feasible plans, one at a time, against the few that are asked."""
    program, load_rps = random_small_program(seed)
    problem = program.at(load_rps)

    def hull(penalties: list[tuple[float, float]]) -> list[tuple[float, float]]:
        outcomes = [
            Outcome(label="", accuracy=a, joules_per_request=p, sla_attainment=1.0)
            for a, p in penalties
        ]
        found = hull_of(outcomes, 1.0).corners
        return [(corner.accuracy, corner.joules_per_request) for corner in found]

    joules = [stage.energy_j for stage in problem.stages]
    found = [(plan.accuracy, plan.joules_per_request) for plan in corners(problem, joules)]
    every = [(plan.accuracy, plan.joules_per_request) for plan in every_plan(problem)]
    expected = hull(every)
    assert len(found) == len(expected)
    for mine, other in zip(hull(found), expected, strict=True):
        assert mine == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "saving", "words"),
    [
        (THIRTY_PERCENT, 0.3, "saves 30.0\u00a0% of the joules"),
        (NOTHING, 0.0, "energy adds nothing here"),
    ],
)
def test_the_study_says_first_what_energy_saves(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[tuple[str, str, int, float, float]],
    saving: float,
    words: str,
) -> None:
    pipeline(tmp_path, options)
    page, table = tmp_path / "page.html", tmp_path / "points.csv"
    call = ["tradeoff", str(tmp_path / "made-up.yaml"), "--load", "4", "--trials", "1"]
    weighted = [*call, "--energy-weight", "0.5", "--json"]
    assert main([*weighted, "--html", str(page), "--csv", str(table)]) == 0
    study = json.loads(capsys.readouterr().out)
    found = study["cases"][0]["yardstick"]
    assert words.replace("\u00a0", " ") in study["answer"][0].lower()
    assert found["adds_nothing"] == (saving == 0)
    assert found["mean_saving"] == pytest.approx(saving, abs=1e-9)
    chosen = next(one for one in found["plans"] if one["weight_from"] <= 0.5)
    assert [one["saving"] for one in found["plans"][1:]] == pytest.approx(
        [saving] * len(found["plans"][1:])
    )
    assert chosen["without_j"] > 0
    text = page.read_text()
    assert "Against the best plans of other weights" in text
    assert words in text.lower()
    rows = list(csv.DictReader(table.read_text().splitlines()))
    least = {row["name"]: float(row["least_joules_without_energy"]) for row in rows}
    assert {10.0, 20.0} == set(least.values())
    assert {row["notice"] for row in rows} == {""}
    for row in rows:
        assert float(row["planned_joules_per_request"]) <= least[row["name"]]

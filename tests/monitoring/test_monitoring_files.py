"""Rules, alerts and dashboard: accepted by promtool, and about figures that the exporter has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("prometheus_client")

from monitored import filled_exporter

from ipa_energy.shipped import shipped_folder

FOLDER = shipped_folder("configs") / "monitoring"
RULES = sorted(FOLDER.glob("*.rules.yml"))
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)"
)


def run(*words: object, text: str | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def known() -> set[str]:
    """Every name that a query may use: the exporter's, and those that rules record."""
    text = filled_exporter().text().decode()
    exported = set(re.findall(r"^(ipa_energy_[a-z_]+)", text, re.MULTILINE))
    return exported | {rule["record"] for rule in rules() if "record" in rule}


def names_in(expr: str) -> set[str]:
    return set(re.findall(r"ipa_energy[a-z0-9_:]+", expr))


def queries() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_every_figure_that_rules_and_dashboard_name_exists() -> None:
    exprs = [rule["expr"] for rule in rules()] + queries()
    exprs += [DASHBOARD["templating"]["list"][1]["query"]["query"]]
    used = set().union(*map(names_in, exprs))
    assert len(used) > 20
    assert used <= known()


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) == len({rule["alert"] for rule in alerts}) == 8
    for rule in alerts:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
    tested = (Path(__file__).parent / "alerts_test.yml").read_text()
    assert {rule["alert"] for rule in alerts} <= set(re.findall(r"alertname: (\w+)", tested))


@promtool
def test_the_rules_do_what_their_tests_say(tmp_path: Path) -> None:
    run("promtool", "check", "rules", *RULES)
    text = (Path(__file__).parent / "alerts_test.yml").read_text()
    tests = tmp_path / "alerts_test.yml"
    tests.write_text(text.replace("RULES", str(FOLDER)))
    assert "SUCCESS" in run("promtool", "test", "rules", tests)


@promtool
def test_a_rule_that_is_wrong_would_be_noticed(tmp_path: Path) -> None:
    for rules_file in RULES:
        wrong = rules_file.read_text().replace("< 0.95", "< 0.75")
        (tmp_path / rules_file.name).write_text(wrong)
    text = (Path(__file__).parent / "alerts_test.yml").read_text()
    (tmp_path / "alerts_test.yml").write_text(text.replace("RULES", str(tmp_path)))
    with pytest.raises(AssertionError, match="IpaEnergySlaMissed"):
        run("promtool", "test", "rules", tmp_path / "alerts_test.yml")


@promtool
def test_what_the_exporter_says_is_well_formed() -> None:
    run("promtool", "check", "metrics", text=filled_exporter().text().decode())


@promtool
def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    made = [
        {"record": f"test:query_{index}", "expr": expr.replace("$pipeline", ".*")}
        for index, expr in enumerate(queries())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}))
    run("promtool", "check", "rules", path)


def test_panels_have_their_own_ids_and_places() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS) == 16
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= 24 and at["h"] > 0 for at in places)
    for one, other in combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)


def test_panels_say_their_unit_and_what_they_show() -> None:
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"].endswith(".")
        refs = [target["refId"] for target in panel["targets"]]
        assert refs == list("ABCDEF"[: len(refs)])
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
